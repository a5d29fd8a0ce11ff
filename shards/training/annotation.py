"""Texts of human-annotated samples: a list in the sidecar, or else the one beside the image."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from shards.inputs.reader import RawSample
from shards.reasons import TextReason

HUMAN = "human"  # the origin of texts that name none
MISSING_COLUMN, WRONG_TYPE = "missing_column", "wrong_type"  # why a row cannot be used

Fields = Mapping[str, Any]
"""A row of an annotation file."""
RowT = TypeVar("RowT")


@dataclass(frozen=True, slots=True)
class WeightedAnswer:
    """An answer to a question, and how much it counts: its share of those who answered."""

    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class SourceText:
    """One text of a sample, and where it comes from.

    A question has `answers`; a statement's `label` says whether it is true. The question of a
    dialogue comes after a `caption` and earlier `rounds` of question and answer, oldest first; its
    `options` are candidates for its answer, the true one perhaps among them.
    """

    text: str
    origin: str
    answers: tuple[WeightedAnswer, ...] = ()
    label: bool | None = None
    caption: str | None = None
    rounds: tuple[tuple[str, str], ...] = ()
    options: tuple[str, ...] = ()


def annotated_texts(raw: RawSample) -> tuple[tuple[SourceText, ...], str]:
    """Return the texts of the sidecar's `texts`, or else of KEY.txt; or none, and the reason.

    An item of `texts` is a string, or an object with `text` and perhaps `origin`. White space is
    squeezed, and nothing else is changed.
    """
    listed = [read for item in _listed(raw.meta) if (read := _read(item)) is not None]
    if listed:
        return tuple(listed), ""
    if raw.text is None:
        return (), TextReason.MISSING
    try:
        text = " ".join(raw.text.decode("utf-8-sig").split())
    except UnicodeDecodeError:
        return (), TextReason.NOT_UTF8
    return ((SourceText(text, HUMAN),), "") if text else ((), TextReason.EMPTY)


def usable_rows(
    rows: Iterable[Any], read: Callable[[Fields], RowT | str], left_out: Counter[str]
) -> Iterator[RowT]:
    """Yield what `read` makes of rows that are objects; it returns a reason for others, counted."""
    for fields in rows:
        row = read(fields) if isinstance(fields, dict) else WRONG_TYPE
        if isinstance(row, str):
            left_out[row] += 1
        else:
            yield row


def fold_spaces(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
    """Put a text on one line, its white space squeezed; None for what no text file can hold."""
    if not isinstance(value, str):
        return None
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON's escapes can spell lone surrogates
        return None
    return " ".join(value.split())


def _listed(meta: bytes | None) -> list[Any]:
    """Read the list of texts in a sidecar; a hostile one may exhaust the stack, and holds none."""
    try:
        found = json.loads(meta or b"null")
    except (ValueError, RecursionError):
        return []
    texts = found.get("texts") if isinstance(found, dict) else None
    return texts if isinstance(texts, list) else []


def _read(item: Any) -> SourceText | None:  # noqa: ANN401 - any JSON value
    fields = {"text": item} if isinstance(item, str) else item
    if not isinstance(fields, dict):
        return None
    text, origin = fold_spaces(fields.get("text")), fields.get("origin", HUMAN)
    if not text or fold_spaces(origin) is None:
        return None
    return SourceText(text, origin)
