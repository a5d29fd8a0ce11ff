"""The recipes of rounds: what is said once reaches all the stages that it concerns."""

from collections.abc import Callable
from pathlib import Path

import pytest

from flows.recipe import RecipeError
from flows.rounds.recipe import (
    BootstrapRecipe,
    check_composition,
    cleaning,
    decoding,
    finetuning,
    parse_view,
    pretraining,
    shards_of,
)
from flows.training.recipe import FinetuneRecipe, PretrainRecipe

HERE = Path("here")
Rounds = Callable[..., BootstrapRecipe]


@pytest.fixture
def recipe(small_rounds: Rounds, tmp_path: Path) -> BootstrapRecipe:
    caption = {"prompt": "a drawing of ", "candidates": 3, "max_tokens": 9}
    clean = small_rounds(tmp_path).clean.model_dump() | {"caption": caption}
    web = {"urls": ["web"], "repeat": 2.0}
    return small_rounds(tmp_path / "out", seed=5, clean=clean, web=web)


def test_what_stages_share_is_said_once(recipe: BootstrapRecipe) -> None:
    trainings: list[PretrainRecipe | FinetuneRecipe] = [
        pretraining(recipe, HERE, shards_of(recipe.web), {}),
        finetuning(recipe, HERE, "captioner", HERE),
        finetuning(recipe, HERE, "filter", HERE),
    ]
    for training in trainings:
        assert (training.seed, training.dtype, training.output) == (5, "fp32", "here")
        assert training.data.max_tokens == recipe.data.max_tokens
    cleaned = cleaning(recipe, HERE, Path("c"), Path("f"))
    assert (cleaned.seed, cleaned.captioners[0].model, cleaned.scorers[0].model) == (5, "c", "f")


def test_pre_training_alone_sees_the_web(recipe: BootstrapRecipe) -> None:
    web, human = pretraining(recipe, HERE, shards_of(recipe.web), {}).data.sources
    assert (web.shards, web.repeat) == (("web",), 2.0)
    for task in ("captioner", "filter"):
        assert finetuning(recipe, HERE, task, HERE).data.sources == (human,)


def test_a_captioner_is_taught_the_prompt_that_it_writes_after(recipe: BootstrapRecipe) -> None:
    assert finetuning(recipe, HERE, "captioner", HERE).prompt == "a drawing of "
    assert cleaning(recipe, HERE, HERE, HERE).captioners[0].prompt == "a drawing of "
    measured = decoding(recipe)
    assert (measured.prompt, measured.max_tokens) == ("a drawing of ", 9)
    assert measured.method == recipe.evaluate.method == "greedy"


def test_a_filter_learns_mistakes_where_it_is_asked_to(
    small_rounds: Rounds, tmp_path: Path
) -> None:
    plain = small_rounds(tmp_path)
    assert finetuning(plain, HERE, "filter", HERE, Path("c")).captions is None
    tuned = plain.filter.model_dump() | {"captions": {"overlap": 0.9}}
    recipe = small_rounds(tmp_path, filter=tuned)
    captions = finetuning(recipe, HERE, "filter", HERE, Path("c")).captions
    assert captions is not None
    assert (captions.captioner, captions.overlap) == ("c", 0.9)
    assert captions.prompt == recipe.clean.caption.prompt
    assert finetuning(recipe, HERE, "captioner", HERE).captions is None


def test_keys_that_are_right_alone_may_not_fit_together(
    small_rounds: Rounds, tmp_path: Path
) -> None:
    check_composition(small_rounds(tmp_path))
    wrong = small_rounds(tmp_path, clean={"caption": {"method": "greedy", "candidates": 2}})
    with pytest.raises(RecipeError, match=r"does not fit together: .*candidates is 2"):
        check_composition(wrong)


def test_a_network_that_goes_on_has_the_sizes_of_its_start(recipe: BootstrapRecipe) -> None:
    model = recipe.pretrain.model
    assert model.size == "tiny"
    made = pretraining(recipe, HERE, shards_of(recipe.web), {"start": "first"}).model
    assert made == type(model)(start="first", dropout=model.dropout)


@pytest.mark.parametrize(
    ("given", "run_url", "view"),
    [
        ("runs/first", "runs/first", None),
        ("runs/first:strict", "runs/first", "strict"),
        ("s3://bucket/run", "s3://bucket/run", None),
        ("s3://bucket/run:loose-2", "s3://bucket/run", "loose-2"),
    ],
)
def test_a_view_is_named_behind_its_run(given: str, run_url: str, view: str | None) -> None:
    parsed = parse_view(given)
    assert (parsed.run, parsed.view) == (run_url, view)
