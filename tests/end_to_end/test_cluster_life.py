"""What a cluster's operator meets: machines that are unfit, credentials."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.toy.world import ToyWorldConfig, write_toy_world
from shards.store import Store
from tests.support.cluster import ray_machines
from tests.support.driving import Command, Models
from tests.support.object_store import s3_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

ON_CPU = ("--direct", "--json", "--set=engine.device=cpu")
FORWARDED = "AWS_ACCESS_KEY_ID,AWS_SECRET_ACCESS_KEY,AWS_ENDPOINT_URL,AWS_DEFAULT_REGION"
FORWARD = f"--set=engine.forward_env=[{FORWARDED}]"
SHARDS = 6
SECRET = "ashen-otter-7461"
Flags = Callable[[Models, Path, Path], list[str]]


@pytest.fixture(scope="module")
def few_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of two toy pictures each."""
    folder = tmp_path_factory.mktemp("few")
    write_toy_world(folder, ToyWorldConfig(samples=2 * SHARDS, samples_per_shard=2))
    return folder


def joined(text: str) -> str:
    """Undo the breaking of lines."""
    return " ".join(text.split())


def test_a_machine_that_does_not_see_the_run_is_left_out_by_name(
    loopback_only: list[str], flags: Flags, toy_models: Models, few_shards: Path, tmp_path: Path
) -> None:
    hidden = tmp_path / "runs"
    hidden.mkdir()
    with ray_machines(loopback_only, tmp_path, "0/0") as machines:
        command = Command(machines.prefix, tmp_path)
        run = [*flags(toy_models, few_shards, hidden / "run"), *ON_CPU]
        run += [f"--address={machines.address}"]
        machines.add(2, hides=hidden)
        lost = command.run(*run)
        assert lost.returncode == 1, lost.stderr
        assert "no machine is left that a worker can start on: " in joined(lost.stderr)
        assert f"node {machines.nodes[1][:8]}): the run folder" in joined(lost.stderr)
        assert "Put the run on a disk that all machines share" in joined(lost.stderr)
        assert "Traceback" not in lost.stderr

        machines.add(2)
        done = command.run(*run)
        assert done.returncode == 0, done.stderr
        assert f"node {machines.nodes[1][:8]}) is left out: the run folder" in joined(done.stderr)
        assert machines.users(json.loads(done.stdout)["workers"]) == [0, 0, 1]


def test_credentials_reach_workers_by_forward_env_alone(
    loopback_only: list[str],
    flags: Flags,
    toy_models: Models,
    few_shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        ray_machines(loopback_only, tmp_path, "2/0") as machines,  # before there are any
        machines.inside(),
        s3_server() as bucket,
    ):
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        Store(f"{bucket}/web").put("00000.tar", (few_shards / "00000.tar").read_bytes())
        command = Command([], tmp_path)
        run = [*flags(toy_models, Path("IN"), Path("OUT")), *ON_CPU]
        run = [flag for flag in run if not flag.startswith(("--input", "--output"))]
        run += [f"--input={bucket}/web", f"--output={bucket}/run"]
        run += [f"--address={machines.address}"]

        lost = command.run(*run)
        assert lost.returncode == 1, lost.stderr
        assert "no machine is left that a worker can start on" in joined(lost.stderr)
        assert "with credentials by engine.forward_env" in joined(lost.stderr)
        assert "Traceback" not in lost.stderr

        done = command.run(*run, FORWARD)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["workers"][0]["samples"] == 2
        told = lost.stdout + lost.stderr + done.stdout + done.stderr
        kept = [path.read_bytes() for path in Path(machines.session).rglob("*") if path.is_file()]
        files = Store(f"{bucket}/run")
        kept += [files.read(name) for name in files.list()]
        assert SECRET not in told
        assert len(kept) > 10
        assert not any(SECRET.encode() in data for data in kept)
