"""What a form or a trigger gives, as a recipe: checked again, since Prefect checks only part."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from flows.recipe import RecipeError, read_recipe

Kind = TypeVar("Kind", bound=BaseModel)
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
    named = ("recipe", recipe), *form.items(), *settings.items()
    for name, place in (pair for key, value in named for pair in _places(key, value)):
        if "://" not in place and not Path(place).expanduser().is_absolute():
            raise RecipeError(
                f"{name} is {place!r}; a worker stands in a folder of its own. Give a whole path, "
                f"as in {Path('/') / 'data' / place}, or a URL"
            )
    path = Path(recipe).expanduser() if recipe else None
    return read_recipe(kind, path, {**form, **settings}, where="the flow run")


def _places(key: str, value: object) -> Iterable[tuple[str, str]]:
    """Find the paths in a parameter, by its name: a model may be a hub id as well."""
    if key.rpartition(".")[2] not in ("recipe", "output", "urls", "root") or not value:
        return ()
    return [(key, str(place)) for place in (value if isinstance(value, list) else [value])]
