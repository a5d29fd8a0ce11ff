"""What stands in the way of a cleaning, as far as it is seen at once: no model is read for it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from flows.engines.address import check_output
from flows.recipe import Recipe
from flows.stages.first_checks import check_cluster, check_lists
from shards.errors import is_store_error
from shards.inputs.listing import list_inputs
from shards.inputs.shard import InputShard
from shards.store import Store

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Problem:
    """What stands in the way of a run, or (`warning`) only makes it worse; and what to do."""

    subject: str
    message: str
    warning: bool = False


class Problems:
    """Checks what a recipe names, and collects every problem; keeps inputs and lists as found."""

    def __init__(self, recipe: Recipe) -> None:
        self.named: list[Problem] = []
        self.inputs = inputs = self._list(recipe)
        self.lists = (
            None
            if inputs is None
            else self.attempt("lists", "", lambda: check_lists(recipe, inputs))
        )
        for subject, models in (("captioner", recipe.captioners), ("filter", recipe.scorers)):
            for model in models:
                self.attempt(subject, model.model, model.look_for)
        self.attempt("output", "", lambda: check_output(recipe.output))
        if all(problem.subject != "output" for problem in self.named):
            self.attempt("output", recipe.output, lambda: _check_writable(recipe.output))
        unset = [name for name in recipe.secrets if name not in os.environ]
        if unset:
            mend = "is not set here. Set it, or take it out"
            self.named.append(Problem("engine.forward_env", f"{', '.join(unset)} {mend}"))
        engine = recipe.engine
        self.attempt("engine.address", "", lambda: check_cluster(engine.kind, engine.address))

    def attempt(self, subject: str, name: str, do: Callable[[], Value]) -> Value | None:
        """Do what may fail; None where it did, which is named."""
        try:
            return do()
        except Exception as error:
            if not (hasattr(type(error), "exit_code") or is_store_error(error)):
                raise
            message = str(error) if name in str(error) else f"{name}: {error}"
            self.named.append(Problem(subject, message))
            return None

    def _list(self, recipe: Recipe) -> list[InputShard] | None:
        urls, root, options = recipe.input.urls, recipe.input.root, recipe.input.options
        for url in urls if len(urls) > 1 else ():  # each for itself, then all of them
            self.attempt("input", url, partial(list_inputs, [url], root, options))
        if self.named:
            return None
        return self.attempt("input", urls[0], partial(list_inputs, urls, root, options))


def where(output: str) -> Path | None:
    """Return the output, or the folder nearest above it that is there; None if not on a disk."""
    store = Store(output)
    if not store.is_local:
        return None
    folder = Path(store.path("data")).parent
    return next(path for path in (folder, *folder.parents) if path.exists())


def _check_writable(output: str) -> None:
    """Raise OSError where no folder can be made; a store over a network is asked by the sample."""
    there = where(output)
    if there is not None and not there.is_dir():  # one above the output
        raise NotADirectoryError(f"{there} is a file, expected a folder; give another output")
    if there is not None and not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"{there} cannot be written to; give another output")
