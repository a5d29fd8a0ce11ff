"""What stands in the way of a cleaning at first sight: all of it is named, and no model is read."""

from pathlib import Path
from typing import Any

import pytest

from flows.recipe import Recipe
from flows.stages.estimate.problems import Problems
from tests.support.toy_run import write_tar


def recipe(folder: Path, **changed: Any) -> Recipe:
    (folder / "web").mkdir(exist_ok=True)
    write_tar(folder / "web" / "a.tar", {"a.txt": b"a dog"})
    sections = {
        "input": {"urls": [str(folder / "web")]},
        "output": str(folder / "out"),
        "caption": {"model": "tiny-captioner"},
        "score": {"model": "tiny-filter"},
    }
    return Recipe.model_validate(sections | changed)


def test_where_all_is_right_the_inputs_are_listed(tmp_path: Path) -> None:
    looked = Problems(recipe(tmp_path))
    assert looked.named == []
    assert [shard.shard for shard in looked.inputs or ()] == ["a"]
    assert not (tmp_path / "out").exists()


def test_the_name_beside_a_slip_is_offered(tmp_path: Path) -> None:
    (tmp_path / "my-filter").mkdir()
    looked = Problems(recipe(tmp_path, score={"model": str(tmp_path / "my-fliter")}))
    assert [problem.subject for problem in looked.named] == ["filter"]
    assert f"Did you mean {tmp_path / 'my-filter'}" in looked.named[0].message


@pytest.mark.parametrize(
    ("output", "said"), [("web/a.tar", "a.tar is a file"), ("web/a.tar/b", "a.tar is a file")]
)
def test_a_file_in_the_outputs_place_is_told_once(tmp_path: Path, output: str, said: str) -> None:
    looked = Problems(recipe(tmp_path, output=str(tmp_path / output)))
    assert [problem.subject for problem in looked.named] == ["output"]
    assert said in looked.named[0].message
