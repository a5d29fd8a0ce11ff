"""What a form or a trigger gives, as a recipe: checked again, since Prefect checks only part."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from flows.recipe import RecipeError, read_recipe
from shards.files.home import expand_home

Kind = TypeVar("Kind", bound=BaseModel)
PLACES = {"recipe", "output", "input", "urls", "root", "web", "human", "held_out"}
PLACES |= {"runs", "run", "shards", "annotations"}  # of a training's sources
PLACES |= {"candidates"}  # of a cleaning; a number of captions is no path
MOST_BYTES = 512 << 10  # that Prefect takes


def check_size(parameters: Mapping[str, Any]) -> None:
    """Raise RecipeError for parameters that Prefect would refuse, after repeating them all."""
    if (size := len(json.dumps(parameters).encode())) > MOST_BYTES:
        raise RecipeError(
            f"the parameters have {size:,} bytes, and Prefect takes {MOST_BYTES:,}. Give a pattern "
            "(web/{00000..99999}.tar) or a folder instead of a list, or a recipe's path"
        )


def recipe_of(
    kind: type[Kind], recipe: str, form: Mapping[str, Any], settings: Mapping[str, Any]
) -> Kind:
    """Read a recipe's path and lay over it what the form gives, then the settings; dotted keys.

    Raises RecipeError, also for a path that depends on where a worker happens to stand.
    """
    check_places({"recipe": recipe, **form, **settings})
    path = Path(expand_home(recipe)) if recipe else None
    read = read_recipe(kind, path, {**form, **settings}, where="the flow run")
    check_places(read.model_dump(mode="json"))
    return read


def check_places(values: Mapping[str, Any]) -> None:
    """Raise RecipeError for a path that depends on where a worker happens to stand."""
    for name, place in _places("", values):
        if place and "://" not in place and not Path(expand_home(place)).is_absolute():
            raise RecipeError(
                f"{name} is {place!r}; a worker stands in a folder of its own. Give a whole path, "
                f"as in {Path('/') / 'data' / place}, or a URL"
            )


def _places(name: str, value: object) -> Iterator[tuple[str, str]]:
    """Find the paths in parameters, by their names: a model may be a hub id as well."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _places(f"{name}.{key}" if name else key, inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _places(name, inner)
    elif isinstance(value, str) and name.rpartition(".")[2] in PLACES:
        yield name, value
