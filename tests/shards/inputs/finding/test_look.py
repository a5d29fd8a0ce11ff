"""A look below a folder tells tars, tables and pictures apart, and leaves out what runs hold."""

from pathlib import Path

from shards.inputs.finding.look import look_below, some
from shards.store import filesystem
from tests.shards.inputs.finding.test_find import make


def test_what_is_found_is_told_apart(tmp_path: Path) -> None:
    make(tmp_path, "a.tar", "t.parquet", "p/1.JPG", "p/2.png", "p/3.bmp", "p/metadata.csv", "n.txt")
    look = look_below(*filesystem(str(tmp_path)), str(tmp_path))
    assert [Path(entry.path).name for entry in look.tars] == ["a.tar"]
    assert [Path(entry.path).name for entry in look.tables] == ["t.parquet"]
    assert look.metadata == [f"{tmp_path}/p/metadata.csv"]
    assert (look.count(look.pictures), look.count(look.foreign)) == (2, 1)
    assert look.others[".txt"] == 1


def test_what_lies_in_a_run_counts_for_nothing(tmp_path: Path) -> None:
    make(tmp_path, "1.jpg", "run/run.json", "run/report/2.jpg", "run/data/samples/a.parquet")
    look = look_below(*filesystem(str(tmp_path)), str(tmp_path))
    assert look.count(look.pictures) == 1
    assert look.outside_runs(look.tables) == ([], [f"{tmp_path}/run"])


def test_a_few_are_named() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcdefg")) == "a, b, c, d, e and 2 more"
