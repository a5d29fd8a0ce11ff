"""The first checks of a cleaning: what it names is there, or it is said; nothing is made."""

from pathlib import Path
from typing import Any

import pytest

from flows.recipe import Recipe
from flows.stages.first_checks import check_cleaning
from models.checkpoints.locate import CheckpointError
from shards.errors import UsageError
from tests.support.toy_run import write_tar


def recipe(folder: Path, **changed: Any) -> Recipe:
    write_tar(folder / "a.tar", {"a.txt": b"a dog"})
    sections = {
        "input": {"urls": [str(folder)]},
        "output": str(folder / "out"),
        "caption": {"model": "tiny-captioner"},
        "score": {"model": "tiny-filter"},
    }
    return Recipe.model_validate(sections | changed)


def test_what_is_there_is_found_and_nothing_is_made(tmp_path: Path) -> None:
    checked = check_cleaning(recipe(tmp_path, score={"model": "OWNER/not-asked-of-the-hub"}))
    assert [shard.shard for shard in checked.inputs] == ["a"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"input": {"urls": ["nothere"]}}, UsageError, "nothere"),
        ({"score": {"model": "./nofilter"}}, CheckpointError, "nofilter"),
        ({"engine": {"address": "127.0.0.1:9"}}, UsageError, "no Ray cluster answers"),
    ],
)
def test_what_is_not_there_is_said(
    tmp_path: Path, changed: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        check_cleaning(recipe(tmp_path, **changed))


def test_an_address_does_not_matter_where_the_work_is_done_here(tmp_path: Path) -> None:
    check_cleaning(recipe(tmp_path, engine={"kind": "local", "address": "127.0.0.1:9"}))
