"""Time and memory of the commands that need no model, on a run of made-up scores.

The run is the same every time for the same numbers: tables and commits as a run writes them, and no
pictures. Each sample has a web text and a synthetic one. Many small shards show what each costs:
`--shards 100000 --texts 20`; few large ones, what each text does.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

from shards.run.scoring.compaction import keep_compaction
from shards.run.scoring.distribution import keep_scores
from shards.run.segment import read_committed, write_segments
from shards.run.snapshot import write_snapshot

sys.path.insert(0, str(Path(__file__).parents[1]))
MAIN = "from flows.cli import main; main()"
COMMANDS = {
    "stats": ["stats"],
    "gc": ["gc"],
    "report": ["report"],
    "verify": ["verify"],
    "thresholds": ["judge", "--name=t", "--threshold=web=0.6", "--threshold=synthetic=0.7"],
    "fraction": ["judge", "--name=f", "--keep-fraction=synthetic=0.3"],
    "again": ["judge", "--name=f", "--keep-fraction=synthetic=0.3"],
    "compare": ["stats", "--view=t", "--against=own"],
}


def main(o: argparse.Namespace, folder: Path) -> None:
    """Make the run, and time each command on it, in a process of its own."""
    # a command's memory begins at that of the process it comes from: this one stays small
    making = get_context("spawn").Process(
        target=make_run, args=(str(folder / "run"), o.shards, o.texts // 2)
    )
    making.start()
    making.join()
    print(f"{o.shards} shards of {o.texts} texts", flush=True)
    for name in o.only or COMMANDS:
        command = COMMANDS[name]
        call = [sys.executable, "-c", MAIN, command[0], str(folder / "run"), *command[1:]]
        started = time.perf_counter()
        with subprocess.Popen(call, stdout=subprocess.DEVNULL) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        what = f"{time.perf_counter() - started:6.2f} s {usage.ru_maxrss / 2**20:6.2f} GiB"
        print(f"{name:11} {what}  exit {process.returncode}", flush=True)


def make_run(url: str, shards: int, samples: int) -> None:
    """Make a run as `clean` ends it, but for its pictures, and say what each step takes."""
    from tests.support.many_shards import make_many

    run = make_many(url, shards, samples, processes=2)
    for _ in range(2):  # as it ends, and as it is taken up again when all is done
        begun = time.process_time()
        committed = read_committed(run)
        read = time.process_time()
        write_segments(run, committed)
        listed = write_snapshot(run, committed=committed)
        written = time.process_time()
        keep_compaction(run, listed.shards, listed.id)
        compacted = time.process_time()
        keep_scores(run, listed.shards, listed.id)
        kept = time.process_time()
        steps = f"commits {read - begun:.1f}, lists {written - read:.1f}"
        print(
            f"CPU s: {steps}, compaction {compacted - written:.1f}, scores {kept - compacted:.1f}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=1_000)
    parser.add_argument("--texts", type=int, default=10_000, help="a shard; an even number")
    parser.add_argument("--only", nargs="*", choices=COMMANDS)
    with tempfile.TemporaryDirectory() as scratch:
        main(parser.parse_args(), Path(scratch))
