"""A recipe with nothing left open: its models pinned and checked, its candidates read."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.recipe import Recipe, RecipeError
from flows.stages.resolve import Resolved, read_models, resolve
from models.checkpoints import checkpoint
from models.checkpoints.locate import SHIPPED, CheckpointError
from shards.store import Store


def resolved(folder: Path, **changes: Any) -> Resolved:
    values = {
        "input": {"urls": ["web"]},
        "output": str(folder / "run"),
        "dtype": "fp32",
        "caption": {"model": "tiny-captioner"},
        "score": {"model": "tiny-filter"},
        "engine": {"kind": "local"},
    }
    recipe = Recipe.model_validate(values | changes)
    return resolve(recipe, Store(recipe.output))


def write(folder: Path, author: str) -> str:
    path = folder / "more.parquet"
    pq.write_table(pa.table({"key": ["a"], "text": ["b"], "author": [author]}), path)
    return str(path)


def test_models_are_pinned_and_summed_up(tmp_path: Path) -> None:
    found = resolved(tmp_path)
    assert isinstance(found.recipe, Recipe)
    infos = [checkpoint.info(SHIPPED[name]) for name in ("tiny-captioner", "tiny-filter")]
    assert [section.model for section in (*found.recipe.captioners, *found.recipe.scorers)] == [
        str(SHIPPED["tiny-captioner"].resolve()),
        str(SHIPPED["tiny-filter"].resolve()),
    ]
    assert found.identity["caption"]["digest"] == infos[0].digest
    assert found.identity["score"]["digest"] == infos[1].digest
    assert found.weights_bytes == 4 * sum(info.parameters for info in infos)
    assert found.about["captioner"]["digest"] == infos[0].digest
    assert "not_reproducible" not in found.about
    assert found.candidates is None


def test_several_stand_in_lists(tmp_path: Path) -> None:
    both = [{"model": "tiny-captioner"}, {"model": "tiny-captioner", "name": "again"}]
    judge = {"threshold": {"again": 0.5}}
    found = resolved(tmp_path, caption=both, judge=judge)
    assert [each.get("name") for each in found.identity["caption"]] == [None, "again"]
    assert len(found.about["captioner"]) == 2
    assert isinstance(found.about["filter"], dict)


def test_models_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="lower max_tokens"):
        resolved(tmp_path, caption={"model": "tiny-captioner", "max_tokens": 600})
    with pytest.raises(CheckpointError, match="expected a filter"):
        resolved(tmp_path, score={"model": "tiny-captioner"})
    recipe = resolved(tmp_path).recipe
    assert isinstance(recipe, Recipe)
    assert [info.config for info in read_models(recipe).captioners] == [recipe.caption]


def test_candidates_are_part_of_the_identity(tmp_path: Path) -> None:
    judge = {"threshold": {"human": 0.5}}
    found = resolved(tmp_path, candidates=write(tmp_path, "human"), judge=judge)
    assert found.candidates is not None
    assert found.identity["candidates"] == found.candidates.identity
    with pytest.raises(RecipeError, match=r"add judge\.threshold\.human"):
        resolved(tmp_path, candidates=write(tmp_path, "human"))
    with pytest.raises(RecipeError, match="'synthetic' is an origin of this run"):
        resolved(tmp_path, candidates=write(tmp_path, "synthetic"))
