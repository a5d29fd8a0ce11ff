"""What a cluster's workers compute best, asked from a driver that has no such machine itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from models.blip.config import resolve_dtype

SCRIPT = """
import sys
from ray.cluster_utils import Cluster
from flows.engines.ray.probe import best_dtype
from flows.recipe import EngineConfig

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
cluster.add_node(num_cpus=2, num_gpus=1)
print("dtype", best_dtype(EngineConfig(device="cpu"), cluster.address))
try:
    best_dtype(EngineConfig(device="cuda"), cluster.address)
except Exception as error:
    print(type(error).__name__, error)
sys.stdout.flush()
cluster.shutdown()
"""


@pytest.mark.nightly
def test_the_first_machine_with_room_decides_and_one_that_cannot_is_named(
    loopback_only: list[str], tmp_path: Path
) -> None:
    command, out = [*loopback_only, sys.executable, "-c", SCRIPT], tmp_path / "out.txt"
    with out.open("wb") as file:  # daemons would hold a pipe open
        subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, timeout=150, check=True)
    said = out.read_text()
    assert f"dtype {resolve_dtype('auto', 'cpu')}\n" in said
    assert "EngineError no machine is left that a worker can start on" in said
    assert "a GPU is wanted, and torch sees none" in said
