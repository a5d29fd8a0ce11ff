"""Score: how well does each text of a picture describe it, by one scorer or by several?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:  # a recipe is checked without waiting for torch
    from models.scorers.scorer import PixelScorer, Scored, Scorer
    from shards.schema import ScoreRow, TextRow

COLUMNS = frozenset({"itm", "itm_logit", "itc"})  # of the table of texts


@dataclass(frozen=True, slots=True)
class NamedScorer:
    """A scorer as a run has it.

    `in_columns`: its scores are columns of the table of texts; else they are rows of the table of
    scores, as NAME.SCORE. `counts_tokens`: it says how many tokens a text has.
    """

    name: str
    scorer: Scorer | PixelScorer
    in_columns: bool = True
    counts_tokens: bool = True


def as_named(names: Sequence[str], scorers: Sequence[Scorer | PixelScorer]) -> list[NamedScorer]:
    """Share out the columns of the texts: to the first scorer that has them, or else tokens alone.

    What the others say are rows of the table of scores.
    """
    columns = first_in_columns([scorer.scores for scorer in scorers])
    return [
        NamedScorer(name, scorer, number == columns, number == (columns or 0))
        for number, (name, scorer) in enumerate(zip(names, scorers, strict=True))
    ]


def first_in_columns(scores: Sequence[Sequence[str]]) -> int | None:
    """Find the first of several scorers whose scores the table of texts has columns for."""
    return next((number for number, names in enumerate(scores) if COLUMNS.issuperset(names)), None)


def score(
    named: NamedScorer,
    pictures: Any,  # noqa: ANN401 - as the scorer takes them
    texts: Sequence[Sequence[TextRow]],
) -> list[tuple[list[TextRow], list[ScoreRow]]]:
    """Score a batch of rows of the texts table, a list per picture.

    Returns completed rows and rows of the scores table for each picture. `pictures` are as the
    scorer takes them: prepared ones, or one tensor.
    """
    results = named.scorer.score(pictures, [[row["text"] for row in rows] for rows in texts])
    return [
        (
            [_completed(named, row, said) for row, said in zip(rows, of_picture, strict=True)],
            [] if named.in_columns else list(_score_rows(named, rows, of_picture)),
        )
        for rows, of_picture in zip(texts, results, strict=True)
    ]


def _completed(named: NamedScorer, row: TextRow, said: Scored) -> TextRow:
    added: dict[str, Any] = {}
    if named.in_columns:
        added = dict(zip(named.scorer.scores, said.values, strict=True))
    if named.counts_tokens:
        added["tokens"] = said.tokens
        added["truncated"] = row.get("truncated", False) or said.truncated
    return cast("TextRow", {**row, **added}) if added else row


def _score_rows(
    named: NamedScorer, rows: Sequence[TextRow], results: Sequence[Scored]
) -> Iterator[ScoreRow]:
    for row, said in zip(rows, results, strict=True):
        for name, value in sorted(zip(named.scorer.scores, said.values, strict=True)):
            yield {"text_no": row["text_no"], "scorer": named.name, "name": name, "value": value}
