"""Read inputs that are damaged at random: tars, pictures, sidecars, texts, annotation files.

    python scripts/fuzz_inputs.py [--cases 20000] [--seed 1] [--only NUMBER]

Each is read as a run reads it, in a process that may crash, hang or grow: that is told, with the
case's number, and the rest goes on. What must hold of every case: each sample is accepted or
rejected for a reason, none is lost, and all that comes out can be stored and shown. `--only`
repeats one case of a seed.
"""

import argparse
import collections
import json
import multiprocessing
import random
import resource
import signal
import sys
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

LONGEST_S = 20
MOST_GROWTH_BYTES = 512 << 20  # of a process, beyond what reading a good picture takes


def main(o: argparse.Namespace) -> int:
    """Run the cases; return 1 if something did not hold of one."""
    print(f"seed {o.seed}", flush=True)
    if o.only is not None:
        from tests.support.fuzz.cases import case

        print(case(o.seed, o.only).check())
        return 0
    began, ended, broken = time.monotonic(), collections.Counter[str](), list[str]()
    growth, slowest = 0, 0.0
    first = 0
    while first < o.cases:
        hears, tells = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.get_context("spawn").Process(
            target=work, args=(o.seed, first, o.cases, tells)
        )
        child.start()
        tells.close()
        while (told := _next(hears)) is not None:
            first, word, wrong, taken_s, growth = told
            ended[word] += 1
            slowest = max(slowest, taken_s)
            first += 1
            if wrong:
                broken.append(f"case {first - 1}: {wrong}")
                print(broken[-1], flush=True)
        child.join()
        if first < o.cases:
            broken.append(f"case {first}: the process ended with {child.exitcode}")
            print(broken[-1], flush=True)
            first += 1
    summary = {
        "cases": o.cases,
        "broken": len(broken),
        "seconds": round(time.monotonic() - began, 1),
        "slowest_s": round(slowest, 2),
        "growth_mib": growth >> 20,
        "ended": dict(sorted(ended.items())),
    }
    print(json.dumps(summary, indent=1))
    return 1 if broken or growth > MOST_GROWTH_BYTES else 0


def _next(hears: Connection) -> tuple[int, str, str, float, int] | None:
    try:
        told: tuple[int, str, str, float, int] = hears.recv()
    except EOFError:
        return None
    return told


def work(seed: int, first: int, end: int, tells: Connection) -> None:
    """Check cases, and tell how each ended; one that hangs ends this process."""
    from tests.support.fuzz.cases import case, warm

    warm()
    before = _peak_bytes()
    for number in range(first, end):
        damaged, began, wrong = case(seed, number), time.monotonic(), ""
        signal.alarm(LONGEST_S)
        try:
            word = damaged.check()
        except Exception:
            word, wrong = "broken", traceback.format_exc(limit=-4)
        signal.alarm(0)
        taken_s = time.monotonic() - began
        tells.send((number, f"{damaged.kind}: {word}", wrong, taken_s, _peak_bytes() - before))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", type=int, help="check this case alone, in this process")
    sys.exit(main(parser.parse_args()))
