"""What a form gives, as a recipe."""

from pathlib import Path
from typing import Any

import pytest

from flows.deployable.parameters import MOST_BYTES, check_size, recipe_of
from flows.recipe import Recipe, RecipeError

GIVEN = {"input.urls": ["/web"], "output": "/run", "caption.model": None}


def test_what_is_given_goes_over_a_recipe_and_settings_over_both(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "caption: {model: tiny-captioner, top_p: 0.5, beams: 3}\nscore: {model: tiny-filter}"
    )
    settings = {"caption.top_p": 0.8, "output": "s3://bucket/run"}
    recipe = recipe_of(Recipe, str(path), GIVEN, settings)
    assert recipe.input.urls == ("/web",)
    assert recipe.output == "s3://bucket/run"
    assert (recipe.captioners[0].model, recipe.captioners[0].top_p) == ("tiny-captioner", 0.8)
    assert recipe.captioners[0].identity()["beams"] == 3


@pytest.mark.parametrize(
    ("recipe", "given", "settings", "why"),
    [
        ("recipe.yaml", {}, {}, "recipe is 'recipe.yaml'"),
        ("", {"output": "runs/first"}, {}, "output is 'runs/first'"),
        ("", {"input.urls": ["/web", "more"]}, {}, "input.urls is 'more'"),
        ("", {}, {"input.root": "web"}, "input.root is 'web'"),
        ("", {"output": "runs"}, {}, "Give a whole path, as in /data/runs, or a URL"),
        ("", {}, {"caption.topp": 0.9}, "Did you mean caption.top_p?"),
    ],
)
def test_what_a_worker_cannot_use_is_refused(
    recipe: str, given: dict[str, Any], settings: dict[str, Any], why: str
) -> None:
    models = {"caption.model": "tiny-captioner", "score.model": "tiny-filter"}
    with pytest.raises(RecipeError) as refused:
        recipe_of(Recipe, recipe, {**GIVEN, **models, **given}, settings)
    assert why in str(refused.value)


def test_a_relative_path_in_a_recipe_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("input: {urls: [web/*.tar]}\nwrite: {images: jpeg}")
    given = {"output": "/run", "caption.model": "a", "score.model": "b"}
    with pytest.raises(RecipeError, match=r"input.urls is 'web/\*.tar'; a worker stands"):
        recipe_of(Recipe, str(path), given, {})
    recipe_of(Recipe, str(path), given | {"input.urls": ["/web"]}, {})


def test_a_model_may_be_a_hub_id() -> None:
    settings = {"score.model": "Salesforce/blip-itm-base-coco", "caption.model": "a/b"}
    assert recipe_of(Recipe, "", GIVEN, settings).captioners[0].model == "a/b"


def test_more_than_prefect_takes_is_refused() -> None:
    room = MOST_BYTES - len('{"input": [""]}')
    check_size({"input": ["x" * room]})
    with pytest.raises(RecipeError, match=r"have 524,289 bytes.*Give a pattern"):
        check_size({"input": ["x" * (room + 1)]})
