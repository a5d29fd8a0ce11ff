"""A head that does not answer; how it dies for real is tried in end_to_end."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, signal, time
from pathlib import Path
from ray.cluster_utils import Cluster
from flows.engines.engine import EngineError
from flows.engines.ray.head import SILENT_AT_MOST_S, Head
from flows.engines.ray.session import ray_session

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
gcs = cluster.head_node.all_processes["gcs_server"][0].process.pid
with ray_session(cluster.address):
    head = Head()
    assert head.answers() and not head.is_silent
    assert head.launched() == [] and not head.may_bring_gpus()
    os.kill(gcs, signal.SIGKILL)
    began = time.monotonic()
    try:
        while time.monotonic() - began < 30:
            assert not head.answers()
            assert head.is_silent
            head.request([{"CPU": 1.0}])  # returns at once
    except EngineError as error:
        Path("said.txt").write_text(f"{time.monotonic() - began:.1f} {SILENT_AT_MOST_S} {error}")
os._exit(0)
"""


@pytest.mark.nightly
def test_a_silent_head_is_told_before_ray_would_end_the_process(
    loopback_only: list[str], tmp_path: Path
) -> None:
    command = [*loopback_only, sys.executable, "-c", SCRIPT]
    with (tmp_path / "out.txt").open("wb") as file:  # daemons would hold a pipe open
        subprocess.run(
            ["env", "RAY_gcs_rpc_server_reconnect_timeout_s=12", *command],
            cwd=tmp_path,
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )
    after, at_most, words = (tmp_path / "said.txt").read_text().split(" ", 2)
    assert float(at_most) <= float(after) < 11
    assert "its GCS is lost" in words


TWO_DRIVERS = """
from pathlib import Path
from ray._private.ray_constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL as KEY
from ray.cluster_utils import Cluster
from ray.experimental.internal_kv import _internal_kv_get
from flows.engines.ray import head as module
from flows.engines.ray.session import ray_session

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
with ray_session(cluster.address):
    waiting, other = module.Head(), module.Head()
    waiting.request([{"CPU": 7.0}])
    other.request([])  # another driver has begun, or ended
    waiting.request([{"CPU": 7.0}])
    at_once = _internal_kv_get(KEY)
    module.ASK_AGAIN_S = 0.0
    waiting.request([{"CPU": 7.0}])
    Path("said.txt").write_text(f"{at_once} {_internal_kv_get(KEY)}")
cluster.shutdown()
"""


@pytest.mark.slow
def test_what_another_driver_has_ended_is_asked_for_again(
    loopback_only: list[str], tmp_path: Path
) -> None:
    command = [*loopback_only, sys.executable, "-c", TWO_DRIVERS]
    with (tmp_path / "out.txt").open("wb") as file:
        subprocess.run(
            command, cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT, timeout=120, check=False
        )
    said = (tmp_path / "said.txt").read_text()
    assert said == """b'[]' b'[{"CPU": 7.0}]'"""
