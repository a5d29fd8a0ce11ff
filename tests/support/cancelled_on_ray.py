"""Launch a cleaning on Ray by a deployment, cancel it, launch it again; print what came of it.

Runs in a network of its own, with loopback alone: `… cancelled_on_ray.py HOME WEB`.
"""

import json
import sys
import time
from pathlib import Path

import psutil

from tests.support.driving import wait_until
from tests.support.prefect_server import POOL, prefect_server

OF_RAY = ("raylet", "gcs_server", "ray::")
ASKED = {"captioner": "tiny-captioner", "filter": "tiny-filter", "engine": "ray"}


def of_ray(home: Path) -> list[str]:
    """Name the processes of Ray that belong to this home."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = process.environ().get("PREFECT_HOME") == str(home / "prefect")
            command = " ".join(process.cmdline())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if mine and any(name in command for name in OF_RAY):
            found.append(command[:60])
    return found


def main(home: Path, web: Path) -> None:
    """Print a line of JSON."""
    out = home / "run"
    with prefect_server(home, RAY_worker_niceness="0") as prefect:
        assert prefect.capfilt("deploy", "--pool", POOL).returncode == 0
        prefect.start_worker()
        asked = {"input": [str(web)], "output": str(out), **ASKED}
        run = prefect.launch("clean/capfilt", **asked)
        wait_until(lambda: len(list(out.glob("commits/*.json"))) >= 3)
        prefect.cancel(run)
        began = time.monotonic()
        message = prefect.wait(run, "Cancelled")["state"]["message"]
        cancelled_s = time.monotonic() - began
        wait_until(lambda: not of_ray(home), 60)
        gone_s = time.monotonic() - began
        attempts = [json.loads(path.read_text()) for path in out.glob("attempts/*/*.json")]
        committed = len(list(out.glob("commits/*.json")))
        again = prefect.launch("clean/capfilt", **asked)
        done = prefect.wait(again, "Completed", timeout_s=200)
        json.dump(
            {
                "message": message,
                "cancelled_s": round(cancelled_s, 1),
                "gone_s": round(gone_s, 1),
                "released": sum(attempt["ending"] == "released" for attempt in attempts),
                "committed": committed,
                "committed_in_the_end": len(list(out.glob("commits/*.json"))),
                "done": done["state"]["message"],
            },
            sys.stdout,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
