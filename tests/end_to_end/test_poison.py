"""Pictures that crash, freeze or drain their process cost themselves, on either engine."""

import io
import json
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.run.run import Run
from shards.run.verify.run import verify_run
from tests.support.driving import Command, Models, table

POISON = Path(__file__).parents[1] / "support" / "poison"
Flags = Callable[[Models, Path, Path], list[str]]
SAMPLES = 5


def picture(seed: int, comment: bytes) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 56, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", comment=comment)
    return buffer.getvalue()


def write_shard(path: Path, faults: dict[int, str]) -> None:
    """Write a shard of pictures, some with a fault that the poisoned codec knows."""
    with tarfile.open(path, "w") as tar:
        for n in range(SAMPLES):
            comment = f"poison: {faults[n]}".encode() if n in faults else b""
            for name, data in (
                (f"k{n}.jpg", picture(n, comment)),
                (f"k{n}.txt", f"{n} cats".encode()),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def reasons(run: Path) -> dict[tuple[object, object], object]:
    """Give the reasons of rejected samples by (shard, index)."""
    return {(row[0], row[1]): row[4] for row in table(run, "samples") if row[3] == "rejected"}


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(POISON))


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_ray_actors_that_die_lead_to_safe_mode(
    capfilt_ray: Command, flags: Flags, toy_models: Models, tmp_path: Path
) -> None:
    (tmp_path / "web").mkdir()
    write_shard(tmp_path / "web" / "crash.tar", {1: "segfault", 2: "hang", 4: "eat"})
    write_shard(tmp_path / "web" / "freeze.tar", {3: "freeze"})
    write_shard(tmp_path / "web" / "healthy.tar", {})
    run = tmp_path / "run"
    done = capfilt_ray.wait(
        capfilt_ray.start(
            *flags(toy_models, tmp_path / "web", run),
            *("--actors=1", "--direct", "--json", "--set=engine.stall_timeout_s=20"),
        ),
        timeout_s=500,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["samples_in"] == 3 * SAMPLES
    assert found["shards"]["pending"] == found["shards"]["quarantined"] == 0
    assert reasons(run) == {
        ("crash", 1): "decoder_crash",
        ("crash", 2): "decode_timeout",
        ("crash", 4): "decoder_crash",
        ("freeze", 3): "decode_timeout",
    }
    assert verify_run(Run.open(str(run))).problems == ()


@pytest.mark.nightly
def test_a_driver_that_dies_leads_to_safe_mode(
    flags: Flags, toy_models: Models, tmp_path: Path
) -> None:
    (tmp_path / "web").mkdir()
    write_shard(tmp_path / "web" / "crash.tar", {1: "segfault"})
    command, run = Command([], tmp_path), tmp_path / "run"
    arguments = [
        *flags(toy_models, tmp_path / "web", run),
        *("--engine=local", "--direct", "--set=engine.stall_timeout_s=100"),
    ]
    for _ in range(3):
        assert command.run(*arguments).returncode == -signal.SIGSEGV
    done = command.run(*arguments)
    assert done.returncode == 0, done.stderr
    assert reasons(run) == {("crash", 1): "decoder_crash"}
    assert verify_run(Run.open(str(run))).problems == ()
