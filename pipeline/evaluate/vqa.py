"""Evaluate answers to questions about pictures: VQA accuracy, as the official evaluator has it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from statistics import fmean
from typing import Any

from models.roles.vqa import VqaModel
from pipeline.evaluate import vqa_accuracy
from pipeline.evaluate.rows import AnnotatedPictures, Loaded, each_once
from pipeline.media.ahead import load_batches
from shards.reasons import TextReason
from shards.training.annotation import (
    MISSING_COLUMN,
    NULL_VALUE,
    WRONG_TYPE,
    Fields,
    fold_spaces,
    spell_answers,
)
from shards.training.left_out import LeftOut, Unusable, excerpt
from shards.training.picture_name import NamesTogether

_GROUPS = ("answer_type", "question_type")  # that the official evaluator reports, if rows have them


def measure_vqa(
    answerer: VqaModel,
    rows: Iterable[Fields],
    images: str,
    batch_size: int = 32,
    *,
    answers: Sequence[str] = (),
    by: str | None = None,
    results: list[dict[str, Any]] | None = None,
    names: NamesTogether | None = None,
) -> dict[str, Any]:
    """Answer the questions of VQA's rows and compare with what people answered.

    With `answers` the best of them is taken, in the original's way (`VqaModel.rank`), else an
    answer is written. Rows without any answer, as of the test split, are answered and not compared.
    `by` names a field of the rows: the mean accuracy of each of its values is given too. `results`,
    if given, is filled in the form of the VQA server.
    """
    pictures, left_out = AnnotatedPictures(images, answerer.preprocess, names), LeftOut()
    scores: list[float] = []
    groups: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    asked = 0
    load = partial(_load, pictures=pictures)
    for batch, loaded in load_batches(rows, load, batch_size, left_out):
        asked += len(batch)
        written = _answer(answerer, batch, loaded, answers)
        for row, answer in zip(batch, written, strict=True):
            if results is not None:
                results.append({"question_id": row.get("question_id"), "answer": answer})
            references = _references(row)
            if not references:
                continue
            scores.append(vqa_accuracy.accuracy(answer, references))
            for field, value in _groups(row, by):
                groups[field][value].append(scores[-1])
    counts = {"questions": asked, "compared": len(scores), "left_out": left_out}
    means = {
        f"by_{field}": {value: fmean(of_value) for value, of_value in sorted(values.items())}
        for field, values in groups.items()
    }
    return counts | {"accuracy": fmean(scores) if scores else None} | means


def _load(row: Fields, pictures: AnnotatedPictures) -> Loaded | str:
    """Load a row's picture, unless the row cannot be used anyway."""
    reason = _unusable(row)
    return pictures.load([row.get("image")]) if reason is None else Unusable(reason, excerpt(row))


def _unusable(row: Fields) -> str | None:
    if "question" not in row:
        return MISSING_COLUMN
    question, references = fold_spaces(row["question"]), _references(row)
    if row["question"] is None or ("answer" in row and row["answer"] is None):
        return NULL_VALUE
    if question is None or not all(isinstance(text, str) for text in references):
        return WRONG_TYPE
    if not question or ("answer" in row and not any(text.strip() for text in references)):
        return TextReason.EMPTY
    return None


def _answer(
    answerer: VqaModel,
    batch: Sequence[Fields],
    loaded: Sequence[Loaded],
    answers: Sequence[str],
) -> Iterator[str]:
    images, about = each_once(loaded)
    questions = [str(fold_spaces(row["question"])) for row in batch]
    if answers:
        ranked = answerer.rank(images, questions, answers, about=about)
        return (best.text for best, *_ in ranked)
    return (answer.text for answer in answerer.answer(images, questions, about=about))


def _references(row: Fields) -> list[Any]:
    """Return people's answers, blank and null ones too: they were asked and count among the ten."""
    return ["" if item is None else item for item in spell_answers(row.get("answer", []))]


def _groups(row: Fields, by: str | None) -> Iterator[tuple[str, str]]:
    for field in dict.fromkeys((*_GROUPS, *((by,) if by else ()))):
        if field in row:
            yield field, str(row[field])
