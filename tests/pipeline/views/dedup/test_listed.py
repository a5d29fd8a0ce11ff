"""Samples that are named by hand, by either form of their keys."""

from pathlib import Path

import pytest

from pipeline.clean.lists import ListError
from pipeline.views.dedup.listed import find_listed
from pipeline.views.exclude import ExclusionRequest, exclude
from shards.run.run import Run
from shards.run.view import open_view
from tests.support.hashed_run import Picture, hashed_run, stranger


@pytest.fixture
def run(tmp_path: Path) -> Run:
    first = [Picture("a b", "1", stranger(1)), Picture("bad", "2", None, status="rejected")]
    return hashed_run(tmp_path / "run", first, [Picture("c", "3", stranger(3))])


def listed(run: Run, path: Path, *lines: str) -> tuple[list[tuple[str, int]], int]:
    path.write_text("\n".join(lines))
    table, unknown = find_listed(run, open_view(run), str(path))
    assert set(table["reason"].to_pylist()) == {"skipped"}
    return list(zip(table["shard"].to_pylist(), table["index"].to_pylist(), strict=True)), unknown


def test_keys_are_found_as_written_or_encoded(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "list"
    assert listed(run, path, "000/a b", "001/c") == ([("000", 0), ("001", 0)], 0)
    assert listed(run, path, "000/a%20b", "000/a b") == ([("000", 0)], 0)


def test_names_of_no_sample_are_counted(run: Run, tmp_path: Path) -> None:
    assert listed(run, tmp_path / "list", "000/bad", "000/x", "009/c", "001/c") == ([("001", 0)], 3)


def test_a_list_without_any_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ListError, match="the first is '000/x'"):
        listed(run, tmp_path / "list", "000/x")


def test_what_the_view_leaves_out_already_is_not_listed_again(run: Run, tmp_path: Path) -> None:
    (path := tmp_path / "list").write_text("000/a b\n")
    groups, _ = find_listed(run, open_view(run), str(path))
    less = exclude(run, open_view(run), ExclusionRequest("less", {}), groups, lambda _: None)
    path.write_text("000/a b\n001/c\n")
    table, unknown = find_listed(run, less, str(path))
    assert (table["shard"].to_pylist(), unknown) == (["001"], 0)
    path.write_text("000/a b\n")
    assert len(find_listed(run, less, str(path))[0]) == 0
