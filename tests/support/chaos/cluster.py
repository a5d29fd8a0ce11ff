"""A Ray cluster of several nodes on this machine, whose daemons can be struck one by one."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

# Deaths are seen in about a second (Ray's own: 14 s, a frozen node 65 s).
QUICK_HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 2,
}
# Read from the environment alone, by every process of Ray: drivers leave a dead GCS in 5 s, not 60.
QUICK_GCS = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
OBJECT_STORE_BYTES = 80_000_000
MARK = "CAPFILT_CHAOS_CLUSTER"  # in the environment of all its processes


class RayNodes:
    """A head without processors, and worker nodes of one processor each."""

    def __init__(self, workers: int) -> None:
        self._workers, self._mark = workers, secrets.token_hex(8)
        self._cluster: Any = None
        self.start()

    @property
    def address(self) -> str:
        """Return what drivers join."""
        return str(self._cluster.address)

    def start(self) -> None:
        """Start all nodes; what was left of earlier ones is ended."""
        from ray.cluster_utils import Cluster

        self.stop()
        os.environ[MARK] = self._mark
        head = {
            "num_cpus": 0,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_system_config": QUICK_HEALTH_CHECKS,
        }
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(self._workers):
            self.add_worker()

    def stop(self) -> None:
        """End all nodes, and what outlived its node."""
        if self._cluster is None:
            return
        for node in (*self._cluster.worker_nodes, self._cluster.head_node):
            node.kill_all_processes(check_alive=False, allow_graceful=False)
        self._cluster = None
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.environ().get(MARK) == self._mark:
                    process.kill()
        del os.environ[MARK]

    def add_worker(self) -> None:
        """Add one more worker node."""
        self._cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES)

    def gcs(self) -> int:
        """Return the process id of the cluster's global control store."""
        return _process(self._cluster.head_node, "gcs_server")

    def head_raylet(self) -> int:
        """Return the process id of the head's raylet."""
        return _process(self._cluster.head_node, "raylet")

    def actors_by_raylet(self) -> dict[int, set[int]]:
        """Return the process ids of the workers' raylets, and of the processes each runs."""
        raylets = (_process(node, "raylet") for node in self._cluster.worker_nodes)
        return {pid: _children(pid) for pid in raylets}

    def replace(self, raylet: int) -> None:
        """Clear away a worker node whose raylet was struck, and add another."""
        for node in list(self._cluster.worker_nodes):
            if _process(node, "raylet") == raylet:
                node.kill_all_processes(check_alive=False, allow_graceful=False)
                self._cluster.worker_nodes.remove(node)
        self.add_worker()


@contextmanager
def ray_nodes(workers: int) -> Iterator[RayNodes]:
    """Run a cluster for a while."""
    nodes = RayNodes(workers)
    try:
        yield nodes
    finally:
        nodes.stop()


def _process(node: Any, name: str) -> int:
    return int(node.all_processes[name][0].process.pid)


def _children(pid: int) -> set[int]:
    try:
        return {child.pid for child in psutil.Process(pid).children()}
    except psutil.NoSuchProcess:
        return set()
