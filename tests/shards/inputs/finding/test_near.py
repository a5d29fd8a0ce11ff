"""What is offered in a missing input's place is an input, and is there."""

import os
import tempfile
from pathlib import Path

import pytest

from shards.inputs.finding.near import near_to, runs_near


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for folder in ("data [v1]", "runs/first", "look/run"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data [v1]" / "00000.tar").touch()
    (tmp_path / "data [v1]" / "00000.txt").touch()
    (tmp_path / "runs" / "first" / "run.json").touch()
    (tmp_path / "look" / "run" / "run.json").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("missing", "meant"),
    [
        ("data [v1]/0000?.tra", "data [v1]/00000.tar"),
        ("data [v2]", "data [v1]"),
        ("data [v2]/*.tar", "data [v1]"),
    ],
)
def test_the_nearest_tar_or_folder_is_offered(place: Path, missing: str, meant: str) -> None:
    assert near_to(f"{place}/{missing}").endswith(f". Did you mean {place}/{meant}?")


@pytest.mark.parametrize("missing", ["runs/frst", "lok", "data [v1]/00000.txr.gz.txt"])
def test_runs_and_other_files_are_not_offered(place: Path, missing: str) -> None:
    assert str(place / "runs" / "first") not in near_to(f"{place}/{missing}")
    assert "look" not in near_to(f"{place}/{missing}")
    assert ".txt?" not in near_to(f"{place}/{missing}")


def test_what_is_there_is_told(place: Path) -> None:
    assert f"found in {place}/data [v1]: 1 .tar, 1 .txt" in near_to(f"{place}/data [v1]/*.tra")
    assert near_to("s3://bucket/*.tra") == ""


def test_runs_are_offered_in_a_folder_and_beside_it(tmp_path: Path) -> None:
    for name in ("first", "noisy", "no-run"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    for name in ("first", "noisy"):
        (tmp_path / "runs" / name / "run.json").touch()
    (tmp_path / "web.tar").touch()
    assert runs_near(f"{tmp_path}/runs") == "; in it lie runs: first, noisy"
    assert runs_near(f"{tmp_path}/runs/fist").endswith(f"Did you mean {tmp_path}/runs/first?")
    assert runs_near(f"{tmp_path}/runs/no-run") == ""
    assert runs_near(f"{tmp_path}/web.tar") == "; it is a file"
    assert runs_near(f"{tmp_path}/none/run") == "; there is no such folder"
    assert runs_near("s3://bucket/run") == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_strangers_folder_is_no_fault() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "secret").mkdir(mode=0o700)
        (folder / "first").mkdir()
        (folder / "first" / "run.json").touch()
        os.seteuid(65534)
        try:
            assert runs_near(f"{folder}/fist").endswith(f"Did you mean {folder}/first?")
            assert "2 folders" in near_to(f"{folder}/web")
        finally:
            os.seteuid(0)
