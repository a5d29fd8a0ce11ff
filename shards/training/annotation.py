"""Texts of human-annotated samples: a list in the sidecar, or else the one beside the image."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from shards.inputs.reader import RawSample
from shards.reasons import TextReason
from shards.training.left_out import Unusable, excerpt

HUMAN = "human"  # the origin of texts that name none
# why a row cannot be used
MISSING_COLUMN, WRONG_TYPE, NULL_VALUE = "missing_column", "wrong_type", "null_value"

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
    for number, fields in enumerate(rows, 1):
        row = read(fields) if isinstance(fields, dict) else WRONG_TYPE
        if isinstance(row, str):
            left_out[Unusable(row, f"row {number:,}: {excerpt(fields)}")] += 1
        else:
            yield row


def read_texts(value: Any) -> list[str] | str:  # noqa: ANN401 - any JSON value
    """Read a text, or a list of them in which nulls are blank; or say why it is none."""
    listed = value if isinstance(value, list) else [value]
    if listed and all(item is None for item in listed):
        return NULL_VALUE
    texts = ["" if item is None else fold_spaces(item) for item in listed]
    whole = [text for text in texts if text is not None]
    return whole if len(whole) == len(texts) else WRONG_TYPE


def spell_answers(value: Any) -> list[Any]:  # noqa: ANN401 - any JSON value
    """List answers, numbers as texts: 2 and 2.0 are "2"; true and false are "yes" and "no"."""
    return [_spelled(item) for item in (value if isinstance(value, list) else [value])]


def _spelled(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return str(value) if is_number else value


def read_label(value: Any) -> bool | None:  # noqa: ANN401 - any JSON value
    """Read whether a statement is true, in each of the ways that files write it."""
    return _LABELS.get(str(value).strip().lower())


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


_LABELS = dict.fromkeys(("true", "1", "1.0"), True) | dict.fromkeys(("false", "0", "0.0"), False)
