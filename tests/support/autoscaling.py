"""A Ray cluster whose autoscaler starts pretended machines, in a network of its own.

Ray's own `AutoscalingCluster` ends every Ray process of this machine, and wants a file that its
wheel lacks; this is the same provider without either.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from tests.support.cluster import enter_network
from tests.support.driving import end_survivors, wait_until

ADDRESS = "127.0.0.1:6379"
HEAD = "ray.head.default"  # as the provider calls it
_PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
_ENVIRONMENT = {
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
}


@contextmanager
def autoscaling_cluster(loopback: Sequence[str], home: Path, **worker: int) -> Iterator[None]:
    """Run a head of two processors, and machines of one kind from none on; be in its network."""
    home = home / "cluster"  # whose processes outlive the commands of the test
    home.mkdir()
    config = home / "autoscaling.json"
    config.write_text(json.dumps(_config(worker)))
    ray = str(Path(sys.executable).with_name("ray"))
    command = [ray, "start", "--head", "--block", "--num-cpus=2", "--port=6379"]
    command += [f"--autoscaling-config={config}", "--include-dashboard=false"]
    environment = os.environ | _ENVIRONMENT | {"PREFECT_HOME": str(home / "prefect")}
    with (home / "head.txt").open("w") as out:
        head = subprocess.Popen([*loopback, *command], env=environment, stdout=out, stderr=out)
    try:
        wait_until(lambda: "Ray runtime started" in (home / "head.txt").read_text())
        with enter_network(head.pid):
            yield
    finally:
        head.send_signal(signal.SIGTERM)
        end_survivors(home)
        head.wait(60)


def _config(worker: dict[str, int]) -> dict[str, Any]:
    machine = {"resources": worker, "node_config": {}, "min_workers": 0, "max_workers": 2}
    head = {"resources": {"CPU": 2}, "node_config": {}, "max_workers": 0}
    provider = {
        "type": "external",
        "module": _PROVIDER,
        "launch_multiple": True,
        "head_node_id": FAKE_HEAD_NODE_ID,
    }
    return {
        "cluster_name": "fake",
        "max_workers": 2,
        "idle_timeout_minutes": 0.2,
        "upscaling_speed": 1.0,
        "provider": provider,
        "available_node_types": {HEAD: head, "gpu": machine},
        "head_node_type": HEAD,
        **{key: {} for key in ("auth", "docker", "file_mounts")},
        **{key: [] for key in ("cluster_synced_files", "initialization_commands")},
        **{f"{who}setup_commands": [] for who in ("", "head_", "worker_")},
        **{f"{who}_start_ray_commands": [] for who in ("head", "worker")},
    }
