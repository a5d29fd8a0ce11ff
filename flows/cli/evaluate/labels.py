"""Labels of pairs in their sidecars, by a dotted key; and which keys there are, if none has it."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.printable import visible
from shards.errors import UsageError

if TYPE_CHECKING:
    from pipeline.evaluate import LabelledPair

_MOST_NAMED, _MOST_CHARACTERS = 20, 100


class NoLabel(UsageError):  # noqa: N818 - reads as what happened
    """A label's key that no sample has."""


class Labels:
    """Reads labels under a dotted key of the sidecar; what is neither true nor false is none."""

    def __init__(self, dotted: str | None) -> None:
        self._dotted, self._boolean = dotted or "", set[str]()

    def __call__(self, pair: "LabelledPair") -> bool | None:
        """Return a pair's label."""
        if len(self._boolean) < _MOST_NAMED:
            self._boolean.update(_boolean_keys(pair.meta))
        value: Any = pair.meta
        for key in self._dotted.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value if isinstance(value, bool) else None

    def check_found(self, labelled: int, where: str) -> None:
        """Raise NoLabel where samples have labels, and none has this one."""
        if self._dotted and not labelled and self._boolean:
            there = ", ".join(sorted(self._boolean)[:_MOST_NAMED])
            raise NoLabel(
                f"{where}: no sample has true or false under {self._dotted!r} in its sidecar; "
                f"these have: {visible(there)}"
            )


def _boolean_keys(meta: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for key, value in meta.items():
        if isinstance(value, bool):
            yield (before + key)[:_MOST_CHARACTERS]
        elif isinstance(value, Mapping):
            yield from _boolean_keys(value, f"{before}{key}.")
