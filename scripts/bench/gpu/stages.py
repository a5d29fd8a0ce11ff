"""The stages, the most valuable first, and how many minutes each may take: 25 in all."""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import NamedTuple

from scripts.bench.gpu.runner import Case
from scripts.bench.gpu.setting import Setting


class Stage(NamedTuple):
    """A module of this folder, whose `cases` are done in so many seconds."""

    name: str
    limit_s: float

    def cases(self, setting: Setting) -> Iterator[Case]:
        """Import what the stage needs, and list its cases."""
        listed: Callable[[Setting], Iterator[Case]]
        listed = import_module(f"scripts.bench.gpu.{self.name}").cases
        yield from listed(setting)


STAGES = (
    Stage("environment", 3 * 60),
    Stage("correctness", 4 * 60),
    Stage("ceilings", 60),
    Stage("arms", 8 * 60),
    Stage("parts", 3 * 60),
    Stage("scaling", 3 * 60),
    Stage("training", 3 * 60),
)
