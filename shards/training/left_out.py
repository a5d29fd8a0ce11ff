"""What is left out of a source or an evaluation: how much by reason, and the first example."""

import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Self

_excerpt = reprlib.Repr()
_excerpt.maxstring = _excerpt.maxother = 60
_excerpt.maxdict, _excerpt.maxlist = 6, 3


class Unusable(str):
    """A reason code, with an example to tell it by: which row, or what was looked for where."""

    __slots__ = ("example",)
    example: str

    def __new__(cls, reason: str, example: str) -> Self:
        """Keep the example beside the code, which is what counts and compares."""
        made = super().__new__(cls, reason)
        made.example = example
        return made


class LeftOut(Counter[str]):
    """Counts by reason; of each the first example is kept."""

    def __init__(self, counts: Mapping[str, int] | Iterable[str] = ()) -> None:
        super().__init__()
        self.examples: dict[str, str] = {}
        self.update(counts)

    def __setitem__(self, reason: str, count: int) -> None:
        """Set a count, and keep the example that came with it."""
        if isinstance(reason, Unusable):
            self.examples.setdefault(str(reason), reason.example)
        super().__setitem__(str(reason), count)

    def join(self, other: "LeftOut") -> None:
        """Add what another part left out."""
        self.update(other)
        self.examples = other.examples | self.examples

    def __str__(self) -> str:
        """Write counts by reason, most frequent first, each with its first example."""
        parts = [f"{reason} {count:,}{self._first(reason)}" for reason, count in self.most_common()]
        return "; ".join(parts) or "nothing"

    def _first(self, reason: str) -> str:
        example = self.examples.get(reason)
        return f" (the first: {example})" if example else ""


def excerpt(value: object) -> str:
    """Write the beginning of a value of any size, such as a row of a file."""
    return _excerpt.repr(value)
