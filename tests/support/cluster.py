"""A Ray cluster of several nodes, all of them this machine, in a network of its own.

As a script it is the cluster's keeper: it takes one request a line, and answers each with a line.
`ray_machines` starts it; commands get into its network by `Machines.prefix`, or `inside` it.
"""

import ctypes
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Ray's own take a minute to notice what these notice in two seconds.
QUICK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 6,
}
CLONE_NEWNET, CLONE_NEWNS = 0x40000000, 0x00020000
MS_BIND, MS_REC_PRIVATE = 0x1000, 0x4000 | 0x40000


class Machines:
    """The cluster as a test sees it; machines go by the number of their coming, the head is 0."""

    def __init__(self, keeper: "subprocess.Popen[str]") -> None:
        self._keeper = keeper
        self.nodes: list[str] = []
        self.address = self.session = ""

    @property
    def prefix(self) -> list[str]:
        """The start of a command that runs in the cluster's network."""
        return ["nsenter", "-t", str(self._keeper.pid), "-n"]

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Move this thread, and what it starts, into the cluster's network."""
        with enter_network(self._keeper.pid):
            yield

    def add(
        self, cpus: int, gpus: int = 0, covers: dict[Path, Path | None] | None = None, **more: Any
    ) -> int:
        """Add a machine; `covers`: folders where it sees another one, or an empty disk (None)."""
        options = {"num_cpus": cpus, "num_gpus": gpus} | more
        covered = {str(at): str(by) if by else None for at, by in (covers or {}).items()}
        answer = self._ask("add", options, covered)
        self.nodes.append(answer["node"])
        self.address, self.session = answer["address"], answer["session"]
        return len(self.nodes) - 1

    def remove(self, machine: int) -> None:
        """Take a machine out as an operator does, with notice (SIGTERM)."""
        self._ask("remove", machine, True)

    def kill(self, machine: int) -> None:
        """Kill a machine's raylet (SIGKILL)."""
        self._ask("remove", machine, False)

    def remove_others(self) -> None:
        """Leave the head alone."""
        for machine in range(1, len(self.nodes)):
            self.remove(machine)
        self._ask("forget_others")
        del self.nodes[1:]

    def hold(self, machine: int, cpus: int) -> None:
        """Be another job, which holds processors of a machine."""
        self._ask("hold", self.nodes[machine], cpus)

    def free(self) -> None:
        """End the other job."""
        self._ask("free")

    def users(self, workers: Sequence[dict[str, Any]]) -> list[int]:
        """Count the workers of each machine, by the hosts of a command's `--json`."""
        hosts = [worker["host"] for worker in workers]
        return [sum(node[:8] in host for host in hosts) for node in self.nodes]

    def _ask(self, what: str, *arguments: Any) -> Any:
        assert self._keeper.stdin
        assert self._keeper.stdout
        self._keeper.stdin.write(json.dumps([what, *arguments]) + "\n")
        self._keeper.stdin.flush()
        return json.loads(self._keeper.stdout.readline())


@contextmanager
def ray_machines(
    loopback: Sequence[str], home: Path, *sizes: str, **head: Any
) -> Iterator[Machines]:
    """Start a cluster of machines, each as processors/GPUs; the first is the head.

    `head`: what else Ray is told of the head.
    """
    from tests.support.driving import end_survivors  # which the keeper cannot import everywhere

    home = home / "cluster"  # whose processes outlive the commands of the test
    home.mkdir()
    environment = os.environ | {"PREFECT_HOME": str(home / "prefect")}
    environment = {name: value for name, value in environment.items() if name != "RAY_ADDRESS"}
    with (home / "keeper.txt").open("w") as err:
        keeper = subprocess.Popen(
            [*loopback, sys.executable, __file__],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        )
    machines = Machines(keeper)
    try:
        for number, size in enumerate(sizes):
            cpus, gpus = map(int, size.split("/"))
            machines.add(cpus, gpus, **(head if number == 0 else {}))
        yield machines
    finally:
        try:
            keeper.communicate(timeout=60)  # it ends with its input
        finally:
            keeper.kill()
            end_survivors(home)


@contextmanager
def enter_network(pid: int) -> Iterator[None]:
    """Move this thread, and what it starts, into another process's network for a while."""
    from fsspec import asyn

    libc = ctypes.CDLL(None, use_errno=True)
    paths = ("/proc/thread-self/ns/net", f"/proc/{pid}/ns/net")
    before, there = (os.open(path, os.O_RDONLY) for path in paths)
    try:
        _check(libc.setns(there, CLONE_NEWNET))
        asyn.iothread[0] = asyn.loop[0] = None  # that of S3 would stay in the other network
        yield
    finally:
        _check(libc.setns(before, CLONE_NEWNET))
        asyn.iothread[0] = asyn.loop[0] = None
        os.close(before)
        os.close(there)


def _check(failed: int) -> None:
    if failed:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class _Other:
    """What another job runs."""

    def ping(self) -> None:
        """Be there."""


class _Keeper:
    """What the requests do, in the cluster's network."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(shutdown_at_exit=False)  # its handlers want the main thread
        self._nodes: list[Any] = []
        self._held: list[Any] = []

    def add(self, options: dict[str, Any], covers: dict[str, str | None]) -> dict[str, str]:
        if not self._nodes:
            options["_system_config"] = QUICK
        if covers:
            thread = threading.Thread(target=self._add_covering, args=(options, covers))
            thread.start()
            thread.join()
        else:
            self._nodes.append(self._cluster.add_node(**options))
        node = self._nodes[-1]
        session = node.get_session_dir_path()
        return {"node": node.node_id, "address": self._cluster.address, "session": session}

    def _add_covering(self, options: dict[str, Any], covers: dict[str, str | None]) -> None:
        """Add a node from a thread whose disks are its own: its processes see what it sees."""
        libc = ctypes.CDLL(None, use_errno=True)
        _check(libc.unshare(CLONE_NEWNS))
        _check(libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None))
        for at, by in covers.items():
            kind, how = (None, MS_BIND) if by else (b"tmpfs", 0)
            _check(libc.mount((by or "none").encode(), at.encode(), kind, how, None))
        self._nodes.append(self._cluster.add_node(**options))

    def remove(self, number: int, gracefully: bool) -> None:
        node = self._nodes[number]
        if node in self._cluster.list_all_nodes():
            self._cluster.remove_node(node, allow_graceful=gracefully)

    def forget_others(self) -> None:
        del self._nodes[1:]

    def hold(self, node: str, cpus: int) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        ray.init(self._cluster.address, log_to_driver=False)
        pinned = NodeAffinitySchedulingStrategy(node, soft=False)
        other = ray.remote(num_cpus=cpus, scheduling_strategy=pinned)(_Other).remote()
        ray.get(other.ping.remote())
        self._held.append(other)

    def free(self) -> None:
        import ray

        self._held.clear()
        ray.shutdown()

    def close(self) -> None:
        self._cluster.shutdown()


def _keep() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints is no answer
    keeper = _Keeper()
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        answer = getattr(keeper, what)(*arguments)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    keeper.close()


if __name__ == "__main__":
    _keep()
