"""Strike a cleaning with SIGKILLs, finish it, and compare it with one that nobody struck.

Every blow that counts hits with an attempt open: its record is there, and no commit of it. Drivers,
Ray actors, raylets and the cluster's GCS are killed, drivers are frozen and woken after the end,
two work at once, and S3 loses answers. Then the same command runs to its end, and what it made is
compared row by row: lost 0, doubled 0, tables equal. `--seed` repeats a series: its kinds, victims
and pauses; the machine adds its own. Needs the `dev` extra; and for Ray, `unshare -n` (root), for
it must not listen on a real network: without, those kinds are left out.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOOPBACK = ["unshare", "-n", sys.executable, str(ROOT / "tests" / "support" / "loopback.py")]
INSIDE = "CAPFILT_CHAOS_LOOPBACK"
RAY = ("actor", "raylet", "gcs", "node")
A_MINUTE = 16  # kills
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",  # Ray leaves a dead GCS in 5 s, not in 60
}


def main(options: argparse.Namespace) -> int:
    """Run the series; return 1 where anything was lost, doubled, changed, or otherwise wrong."""
    from tests.support.chaos.kinds import NAMES, USUAL, series
    from tests.support.chaos.tally import as_table, in_all

    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    names = tuple(options.kinds.split(",")) if options.kinds else USUAL
    if unknown := set(names) - set(NAMES):
        raise SystemExit(f"chaos: no kinds {sorted(unknown)}; there are {', '.join(NAMES)}")
    kills = options.kills or (round(options.minutes * A_MINUTE) if options.minutes else 500)
    if INSIDE not in os.environ and set(names) & set(RAY):
        print("chaos: no network of its own here (`unshare -n`): nothing of Ray", file=sys.stderr)
        names = tuple(name for name in names if name not in RAY)
    tallies, began = [], time.monotonic()
    print(f"seed {seed}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as scratch:
        os.environ["RAY_TMPDIR"] = scratch
        for tally in series(names, seed, kills, options.minutes, Path(scratch)):
            tallies.append(tally)
            print(as_table([tally]).splitlines()[-2], file=sys.stderr, flush=True)
    total = in_all(tallies)
    record = {"seed": seed, "seconds": round(time.monotonic() - began), "held": total.held}
    if options.json:
        print(json.dumps(record | {"kinds": [vars(tally) for tally in tallies]}))
    else:
        print(as_table(tallies), *total.notes, *total.problems, sep="\n")
    return 0 if total.held else 1


def enter_loopback() -> None:
    """Start again where the only network is loopback, if this machine lets us."""
    if INSIDE in os.environ:
        return
    os.environ.update(ENVIRONMENT)
    if subprocess.run([*LOOPBACK, "true"], capture_output=True, check=False).returncode == 0:
        os.environ[INSIDE] = "1"
        os.execvp(LOOPBACK[0], [*LOOPBACK, sys.executable, *sys.argv])  # noqa: S606 - our own command


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, help="in all, over all kinds (500)")
    parser.add_argument(
        "--minutes", type=float, help="about so many minutes; each kind strikes once"
    )
    parser.add_argument("--kinds", help="of driver,commit,s3,actor,raylet,gcs (all), node")
    parser.add_argument("--seed", type=int, default=os.environ.get("CAPFILT_CHAOS_SEED"))
    parser.add_argument("--json", action="store_true", help="print the tallies as JSON")
    arguments = parser.parse_args()
    enter_loopback()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # clusters end, too
    sys.path.insert(0, str(ROOT))
    sys.exit(main(arguments))
