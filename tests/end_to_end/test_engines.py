"""The same run by every engine: the output must not depend on where it was made."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.driving import Command, InProcess, Models, table

Flags = Callable[[Models, Path, Path], list[str]]


@pytest.fixture(scope="module")
def some_pairs(data_dir: Path) -> str:
    """Two small shards of real pairs."""
    return str(data_dir / "pairs" / "shards" / "{coco-00000,clipart-00001}.tar")


@pytest.fixture(scope="module")
def local_run(
    tmp_path_factory: pytest.TempPathFactory, flags: Flags, parity_models: Models, some_pairs: str
) -> Path:
    """The run in one process."""
    home = tmp_path_factory.mktemp("local")
    run = home / "run"
    done = InProcess(home, lambda: ("", "")).run(
        *flags(parity_models, Path(some_pairs), run), "--engine=local", "--direct"
    )
    assert done.returncode == 0
    return run


@pytest.mark.nightly  # the tests of kills compare what Ray gives with what one process gives, too
def test_ray_gives_what_one_process_gives(
    tmp_path: Path,
    capfilt_ray: Command,
    flags: Flags,
    parity_models: Models,
    some_pairs: str,
    local_run: Path,
) -> None:
    for actors in (1, 2):
        run = tmp_path / f"ray{actors}"
        done = capfilt_ray.run(
            *flags(parity_models, Path(some_pairs), run), f"--actors={actors}", "--direct"
        )
        assert done.returncode == 0, done.stderr
        assert table(run, "samples") == table(local_run, "samples")
        assert table(run, "decisions") == table(local_run, "decisions")
        for ours, theirs in zip(table(run, "texts"), table(local_run, "texts"), strict=True):
            assert ours[:6] == theirs[:6]  # up to the text itself
            assert ours[6] == pytest.approx(theirs[6], abs=1e-5)  # itm
            assert ours[7] == pytest.approx(theirs[7], rel=1e-5, abs=1e-5)  # itm_logit, unbounded
            assert ours[8] == pytest.approx(theirs[8], abs=1e-5)  # itc


def test_batches_and_threads_change_nothing(
    tmp_path: Path,
    capfilt: InProcess,
    flags: Flags,
    parity_models: Models,
    some_pairs: str,
    local_run: Path,
) -> None:
    run = tmp_path / "other"
    done = capfilt.run(
        *flags(parity_models, Path(some_pairs), run),
        "--engine=local",
        "--direct",
        "--set=engine.batch_size=7",
        "--set=engine.decode_threads=5",
    )
    assert done.returncode == 0, done.stderr
    assert table(run, "decisions") == table(local_run, "decisions")
    assert [row[:6] for row in table(run, "texts")] == [
        row[:6] for row in table(local_run, "texts")
    ]


def test_parts_together_make_the_whole(
    tmp_path: Path,
    capfilt: InProcess,
    flags: Flags,
    parity_models: Models,
    some_pairs: str,
    local_run: Path,
) -> None:
    run = tmp_path / "parts"
    for part in ("1/2", "2/2"):
        done = capfilt.run(
            *flags(parity_models, Path(some_pairs), run),
            "--engine=local",
            "--direct",
            f"--part={part}",
        )
        assert done.returncode == 0, done.stderr
    assert table(run, "decisions") == table(local_run, "decisions")
    assert (run / "snapshot.json").exists()
