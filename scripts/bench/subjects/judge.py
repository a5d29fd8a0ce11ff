"""Time and memory of `capfilt judge` on a run of made-up scores, and of `stats --against`.

The run is the same every time for the same numbers: committed and listed by the real code, with
tables as a run writes them, and no pictures. Each sample has a web text and a synthetic one.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline.clean.judge import JudgeConfig, judge
from shards.inputs.listing import InputShard
from shards.inputs.reader import ShardState, State
from shards.run.attempt import start_attempt
from shards.run.commit import Commit, InputRecord, commit
from shards.run.run import Run
from shards.run.snapshot import write_snapshot
from shards.schema import TEXTS, arrow_rows
from shards.store import Store
from shards.writer import ShardWriter

ORIGINS = ("web", "synthetic")
MAIN = "from flows.cli import main; main()"
COMMANDS = {
    "thresholds": ["judge", "--name=t", "--threshold=web=0.6", "--threshold=synthetic=0.7"],
    "fraction": ["judge", "--name=f", "--keep-fraction=synthetic=0.3"],
    "again": ["judge", "--name=f", "--keep-fraction=synthetic=0.3"],
    "compare": ["stats", "--view=t", "--against=own"],
}


def main(o: argparse.Namespace, folder: Path) -> None:
    """Make the run, and time each command on it, in a process of its own."""
    make_run(str(folder / "run"), o.shards, o.texts // 2)
    print(f"{o.shards} shards of {o.texts} texts")
    for name, command in COMMANDS.items():
        call = [sys.executable, "-c", MAIN, command[0], str(folder / "run"), *command[1:]]
        started = time.perf_counter()
        with subprocess.Popen(call, stdout=subprocess.DEVNULL) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        what = f"{time.perf_counter() - started:6.2f} s {usage.ru_maxrss / 2**20:6.2f} GiB"
        print(f"{name:11} {what}  exit {process.returncode}")


def make_run(url: str, shards: int, samples: int) -> None:
    """Commit shards of samples without pictures, and list them."""
    inputs = [InputShard(f"/absent/{n:05}.tar", f"{n:05}", 1, None, 0.0) for n in range(shards)]
    identity = {"judge": {"threshold": dict.fromkeys(ORIGINS, 0.5)}}
    run = Run.create(Store(url), "", identity, {}, inputs)
    for number, item in enumerate(inputs):
        attempt = start_attempt(run, item.shard)
        with ShardWriter(run.store, item.shard, attempt) as writer:
            write_rows(writer, item.shard, samples, np.random.default_rng(number))
            files, counts = tuple(writer.finish()), writer.counts
        record = Commit(
            shard=item.shard,
            fingerprint=run.fingerprint,
            attempt=attempt,
            input=InputRecord(url=item.url, size_bytes=1, sha256="0" * 64),
            state=ShardState(state=State.COMPLETE),
            files=files,
            counts=counts,
            environment={},
            started="",
            ended="",
        )
        commit(run, record)
    write_snapshot(run)


def write_rows(writer: ShardWriter, shard: str, samples: int, draw: np.random.Generator) -> None:
    """Write the rows of one shard, with scores as skewed as a filter's."""
    scores, texts = draw.beta(0.6, 0.4, 2 * samples).astype(np.float32).tolist(), []
    for number, itm in enumerate(scores):
        index, text_no = divmod(number, 2)
        text = (f"a picture of {index}", f"{index:09}")[text_no]
        place = {"shard": shard, "index": index, "text_no": text_no}
        texts.append(place | {"origin": ORIGINS[text_no], "text": text, "itm": itm})
    decisions = judge(arrow_rows(texts, TEXTS), JudgeConfig()).to_pylist()
    for index in range(samples):
        web, synthetic = both = texts[2 * index : 2 * index + 2]
        sample = {"index": index, "key": synthetic["text"], "status": "ok"}
        sample["web_text"] = web["text"]
        writer.add(sample, both, decisions[2 * index : 2 * index + 2])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=1_000)
    parser.add_argument("--texts", type=int, default=10_000, help="a shard; an even number")
    with tempfile.TemporaryDirectory() as scratch:
        main(parser.parse_args(), Path(scratch))
