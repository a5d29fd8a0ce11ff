"""VisDial 1.0's file of dialogues: a caption, and rounds of question, answer and candidates.

The file lists all questions and answers once, and its rounds name them by number. Pictures are
known by number too: the last one in a file's name. A dialogue, or a round, that cannot be used is
counted by its reason; the rounds after a broken one go on without it.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeGuard

from shards.reasons import TextReason
from shards.training.annotation import (
    MISSING_COLUMN,
    WRONG_TYPE,
    Fields,
    fold_spaces,
    usable_rows,
)


@dataclass(frozen=True, slots=True)
class DialogueRound:
    """A question, its answer, and the candidates for it; `number` counts the file's, from 1.

    `answer` is empty and `true`, the answer's place among the candidates, None where the file does
    not tell, as in VisDial's test split.
    """

    number: int
    question: str
    answer: str = ""
    options: tuple[str, ...] = ()
    true: int | None = None


@dataclass(frozen=True, slots=True)
class DialogueRow:
    """What was said about one picture."""

    image_id: int
    caption: str
    rounds: tuple[DialogueRound, ...]


def is_dialogues(parsed: Any) -> bool:  # noqa: ANN401 - any JSON value
    """Tell whether a JSON value has the form of VisDial's files."""
    data = parsed.get("data") if isinstance(parsed, dict) else None
    return isinstance(data, dict) and all(
        isinstance(data.get(name), list) for name in ("questions", "answers", "dialogs")
    )


def dialogues(parsed: Fields, left_out: Counter[str]) -> Iterator[DialogueRow]:
    """Yield the usable dialogues of a parsed file, and count the rest."""
    data = parsed["data"]
    questions, answers = ([fold_spaces(text) for text in data[k]] for k in ("questions", "answers"))
    read = partial(_dialogue, questions, answers, left_out)
    yield from usable_rows(data["dialogs"], read, left_out)


def _dialogue(
    questions: list[str | None], answers: list[str | None], left_out: Counter[str], fields: Fields
) -> DialogueRow | str:
    number, caption = fields.get("image_id"), fold_spaces(fields.get("caption"))
    listed = fields.get("dialog")
    if not _is_number(number) or caption is None or not isinstance(listed, list):
        return WRONG_TYPE
    rounds: list[DialogueRound] = []
    for place, item in enumerate(listed, 1):
        rounds += usable_rows([item], partial(_round, questions, answers, place), left_out)
    return DialogueRow(number, caption, tuple(rounds)) if rounds else TextReason.EMPTY


def _round(
    questions: list[str | None], answers: list[str | None], number: int, fields: Fields
) -> DialogueRound | str:
    if "question" not in fields:
        return MISSING_COLUMN
    question = _named(questions, fields["question"])
    answer = _named(answers, fields["answer"]) if "answer" in fields else ""
    given = fields.get("answer_options", [])
    listed = [_named(answers, one) for one in given] if isinstance(given, list) else [None]
    options = tuple(text for text in listed if text is not None)
    true = fields.get("gt_index")
    if question is None or answer is None or len(options) < len(listed):
        return WRONG_TYPE
    if true is not None and not (_is_number(true) and true < len(options)):
        return WRONG_TYPE
    return DialogueRound(number, question, answer, options, true) if question else TextReason.EMPTY


def _named(texts: list[str | None], number: Any) -> str | None:  # noqa: ANN401 - any JSON value
    return texts[number] if _is_number(number) and number < len(texts) else None


def _is_number(value: Any) -> TypeGuard[int]:  # noqa: ANN401 - any JSON value
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def read_relevance(parsed: Any) -> dict[tuple[int, int], list[float]]:  # noqa: ANN401 - any JSON value
    """Read VisDial's dense annotations: how relevant people found the candidates of some rounds.

    Rows that are not of their form are passed over.
    """
    rows = [row for row in parsed if isinstance(row, dict)] if isinstance(parsed, list) else []
    return {
        (row["image_id"], row["round_id"]): [float(gain) for gain in gains]
        for row in rows
        if _is_number(row.get("image_id")) and _is_number(row.get("round_id"))
        if isinstance(gains := row.get("gt_relevance", row.get("relevance")), list)
        and all(isinstance(gain, int | float) for gain in gains)
    }
