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
import pyarrow as pa

from pipeline.clean.judge import JudgeConfig, judge
from shards.inputs.listing import InputShard
from shards.inputs.reader import ShardState, State
from shards.run import commit as commits
from shards.run.attempt import start_attempt
from shards.run.run import Run
from shards.run.snapshot import write_snapshot
from shards.schema import SCHEMAS
from shards.store import Store
from shards.writer import TableFile, publish_file

ROWS_PER_GROUP = 1_000  # as in a run
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
    """Commit shards of samples that share tables, and list them."""
    inputs = [InputShard(f"/absent/{n:05}.tar", f"{n:05}", 1, None, 0.0) for n in range(shards)]
    identity = {"judge": {"threshold": dict.fromkeys(ORIGINS, 0.5)}}
    run = Run.create(Store(url), "", identity, {}, inputs)
    for number, item in enumerate(inputs):
        tables = made_tables(item.shard, samples, np.random.default_rng(number))
        with run.store.staging() as folder:
            attempt, files = start_attempt(run, item.shard), []
            for name, table in tables.items():
                file = TableFile(folder / name, name)
                for begin in range(0, len(table), ROWS_PER_GROUP):
                    file.add_table(table.slice(begin, ROWS_PER_GROUP))
                path = commits.data_name(name, item.shard, attempt)
                files.append(publish_file(run.store, file, name, path))
        facts = {"shard": item.shard, "fingerprint": run.fingerprint, "attempt": attempt}
        facts["input"] = commits.InputRecord(url=item.url, size_bytes=1, sha256="0" * 64)
        facts["state"] = ShardState(state=State.COMPLETE)
        keep = tables["decisions"]["keep"].to_numpy().reshape(-1, 2)
        facts |= {"files": tuple(files), "counts": counted(samples, keep)}
        commits.commit(run, commits.Commit(**facts, environment={}, started="", ended=""))
    write_snapshot(run)


def made_tables(shard: str, samples: int, draw: np.random.Generator) -> dict[str, pa.Table]:
    """Make the rows of one shard, with scores as skewed as a filter's."""
    itm = draw.beta(0.6, 0.4, 2 * samples).astype(np.float32)
    index = np.arange(samples, dtype=np.int32)
    keys, web = [f"{n:09}" for n in index], [f"a picture of {n}" for n in index]
    facts = {"index": index, "key": keys, "status": ["ok"] * samples, "web_text": web}
    texts = {
        "index": np.repeat(index, 2),
        "text_no": np.tile(np.array([0, 1], np.int16), samples),
        "origin": [*ORIGINS] * samples,
        "text": [text for pair in zip(web, keys, strict=True) for text in pair],
        "itm": itm,
    }
    made = {"samples": full(shard, facts, "samples"), "texts": full(shard, texts, "texts")}
    return made | {"decisions": judge(made["texts"], JudgeConfig())}


def full(shard: str, columns: dict, table: str) -> pa.Table:
    """Complete a table with its shard, and with nulls."""
    schema, rows = SCHEMAS[table], len(columns["index"])
    columns = columns | {"shard": [shard] * rows}
    arrays = [pa.array(columns.get(field.name, [None] * rows), field.type) for field in schema]
    return pa.table(arrays, schema=schema)


def counted(samples: int, keep: np.ndarray) -> commits.Counts:
    """Count a shard whose samples have two texts each."""
    kept, by_origin = int(keep.any(axis=1).sum()), dict(zip(ORIGINS, keep.sum(axis=0), strict=True))
    texts = {name: commits.TextCounts(given=samples, kept=int(n)) for name, n in by_origin.items()}
    return commits.Counts(samples_in=samples, kept=kept, filtered=samples - kept, texts=texts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=1_000)
    parser.add_argument("--texts", type=int, default=10_000, help="a shard; an even number")
    with tempfile.TemporaryDirectory() as scratch:
        main(parser.parse_args(), Path(scratch))
