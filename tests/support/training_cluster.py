"""Train on a cluster of several nodes in a network of its own, and kill one of them on the way.

Run as `unshare -n python loopback.py python training_cluster.py SPEC`, where SPEC is a JSON file;
what came of it is written to `outcome.json` beside it.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CAPFILT = str(Path(sys.executable).with_name("capfilt"))
NICENESS = "RAY_worker_niceness"
LIMIT_S = 300.0
# so that a node which is killed is known as lost within two seconds
HEARTBEATS = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
}


@dataclass(frozen=True)
class Kill:
    """The raylet of a node (0 is the head), killed so long after a file or folder is there."""

    node: int
    after: str
    delay_s: float = 0.0


@dataclass(frozen=True)
class Spec:
    """A cluster by its nodes (processors and GPUs, the head first), and the command on it."""

    nodes: tuple[tuple[int, int], ...]
    arguments: tuple[str, ...]
    kill: Kill | None = None
    limit_s: float = LIMIT_S


@dataclass(frozen=True)
class Outcome:
    """How the command ended: its exit code (None: it did not, in time), and when."""

    code: int | None
    seconds: float
    after_kill_s: float | None
    output: str


def train_on(prefix: Sequence[str], home: Path, spec: Spec) -> Outcome:
    """Run a command on a cluster, in a folder of its own."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "spec.json").write_text(json.dumps(asdict(spec)))
    # daemons of a killed node would hold a pipe open
    with (home / "cluster.txt").open("wb") as out:
        subprocess.run(
            [*prefix, sys.executable, __file__, str(home / "spec.json")],
            stdout=out,
            stderr=out,
            check=True,
            timeout=spec.limit_s + 100,
        )
    return Outcome(**json.loads((home / "outcome.json").read_text()))


def _main(path: Path) -> None:
    spec = json.loads(path.read_text())
    nodes, address = _start(spec["nodes"])
    out = path.with_name("out.txt")
    with out.open("wb") as file:
        process = subprocess.Popen(
            [CAPFILT, *spec["arguments"], f"--address={address}"],
            cwd=path.parent,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    outcome = asdict(_watch(process, spec, nodes)) | {"output": out.read_text(encoding="utf-8")}
    path.with_name("outcome.json").write_text(json.dumps(outcome))
    for node in nodes:
        node.kill_all_processes(check_alive=False, allow_graceful=False)


def _start(spec: list[list[int]]) -> tuple[list[Any], str]:
    from ray.cluster_utils import Cluster

    os.environ[NICENESS] = "0"  # a busy machine would starve Ray's own 15 for minutes
    (cpus, gpus), *others = spec
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": cpus,
            "num_gpus": gpus,
            "include_dashboard": False,
            "_system_config": HEARTBEATS,
        },
    )
    others = [cluster.add_node(num_cpus=cpus, num_gpus=gpus) for cpus, gpus in others]
    return [cluster.head_node, *others], cluster.address


def _watch(process: "subprocess.Popen[bytes]", spec: dict[str, Any], nodes: list[Any]) -> Outcome:
    """Wait for the command's end, and kill on the way."""
    began, killed, kill = time.monotonic(), None, spec["kill"]
    while process.poll() is None and time.monotonic() - began < spec["limit_s"]:
        if kill and killed is None and Path(kill["after"]).exists():
            time.sleep(kill["delay_s"])
            raylet = nodes[kill["node"]].all_processes["raylet"][0].process
            os.kill(raylet.pid, signal.SIGKILL)
            killed = time.monotonic()
        time.sleep(0.05)
    ended, code = time.monotonic(), process.poll()
    process.kill()
    return Outcome(code, ended - began, killed and ended - killed, "")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
