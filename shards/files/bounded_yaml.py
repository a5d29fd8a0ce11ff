"""YAML within bounds: what is quickly written must not take long, or much memory, to read.

A few hundred bytes of aliases stand for billions of values, and brackets nest as deep as one likes.
So depth and size are counted from the parser's events, as if every alias were written out, before
anything is made of them.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

MOST_CHARACTERS = 1 << 20
MOST_DEPTH = 32
MOST_VALUES = 100_000  # aliases written out
_LARGEST = 1 << 63  # no whole number of a recipe needs more bits
_MESSAGE_CHARACTERS = 300
_SMALL_CHARACTERS = 1 << 14


class BoundedYamlError(ValueError):
    """A text that is no YAML, or more than is read; the message is one line."""


def parse_yaml(text: str) -> Any:  # noqa: ANN401 - any YAML value
    """Parse one document of plain values, as `yaml.safe_load` does."""
    if len(text) > MOST_CHARACTERS:
        raise BoundedYamlError(f"{len(text):,} characters, at most {MOST_CHARACTERS:,} are read")
    loader: Any = yaml.SafeLoader
    # 20 times as fast; names of files that are not UTF-8 it refuses
    if len(text) > _SMALL_CHARACTERS:
        loader = getattr(yaml, "CSafeLoader", loader)
    try:
        _check_size(yaml.parse(text, Loader=loader))
        value = yaml.load(text, Loader=loader)  # noqa: S506 - both are safe loaders
    except yaml.YAMLError as error:
        raise BoundedYamlError(_one_line(error)) from None
    except BoundedYamlError:
        raise
    # what its makers of numbers, dates and flags raise for a value that is none
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise BoundedYamlError(f"a value cannot be read: {_one_line(error)}") from None
    for scalar in _scalars(value):
        _check_scalar(scalar)
    return value


def _check_size(events: Iterable[yaml.Event]) -> None:
    sizes = [0]  # of what is open, innermost last
    anchors: list[str | None] = []  # of the same
    named: dict[str, int | None] = {}  # None while it is open
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            sizes.append(1)
            anchors.append(event.anchor)
            named |= {event.anchor: None} if event.anchor else {}
            if len(anchors) > MOST_DEPTH:
                raise BoundedYamlError(f"nested deeper than {MOST_DEPTH} levels")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            size, anchor = sizes.pop(), anchors.pop()
        elif isinstance(event, yaml.AliasEvent):
            size, anchor = _size_of(named, event.anchor), None
        elif isinstance(event, yaml.ScalarEvent):
            size, anchor = 1, event.anchor
        else:
            continue
        if anchor:
            named[anchor] = size
        sizes[-1] += size
        if sum(sizes) > MOST_VALUES:
            raise BoundedYamlError(f"more than {MOST_VALUES:,} values, aliases written out")


def _size_of(named: dict[str, int | None], anchor: str | None) -> int:
    assert anchor is not None, "an alias has a name"
    size = named.get(anchor, 1)  # an unknown one is an error of the loader
    if size is None:
        raise BoundedYamlError(f"the alias *{anchor[:40]} lies in what it stands for")
    return size


def _scalars(value: object) -> Iterator[object]:
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            waiting += value
        else:
            yield value


def _check_scalar(value: object) -> None:
    if isinstance(value, int) and abs(value) >= _LARGEST:
        raise BoundedYamlError(
            f"a whole number of {value.bit_length():,} bits, at most 63 are read"
        )
    if not isinstance(value, str):
        return
    try:
        is_text = b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        is_text = False
    if not is_text:
        raise BoundedYamlError(f"{value[:40]!r} holds a NUL or half a character")


def _one_line(error: Exception) -> str:
    said = " ".join(str(error).split())
    return said if len(said) <= _MESSAGE_CHARACTERS else f"{said[:_MESSAGE_CHARACTERS]}…"
