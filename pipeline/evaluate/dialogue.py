"""Evaluate dialogues (VisDial): at which rank does the true answer come among the candidates?"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from torch import Tensor

from models.roles.dialogue import DialogueRanker, RankedCandidate
from models.training.dialogue import Dialogue
from pipeline.evaluate import metrics
from pipeline.evaluate.rows import AnnotatedPictures
from shards.training import dialogue_file
from shards.training.left_out import LeftOut, Unusable

Dense = Mapping[tuple[int, int], Sequence[float]]
"""Of (image, round): how relevant people found each candidate, in [0, 1]."""

NO_CANDIDATES = "candidates_missing"


def measure_dialogue(
    ranker: DialogueRanker,
    dialogues: Iterable[dialogue_file.DialogueRow],
    images: str,
    *,
    dense: Dense | None = None,
    results: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Rank the candidates of each round, the rounds before it given with their true answers.

    `dense` gives NDCG too. `results`, if given, is filled in the form of the VisDial server.
    """
    pictures, left_out = AnnotatedPictures(images, ranker.preprocess), LeftOut()
    true_ranks: list[int] = []
    gains: list[float | None] = []
    ranked = 0
    for dialogue in dialogues:
        rounds = [row for row in dialogue.rounds if row.options]
        if without := len(dialogue.rounds) - len(rounds):
            left_out[Unusable(NO_CANDIDATES, f"picture {dialogue.image_id}")] += without
        if not rounds:
            continue
        loaded = pictures.load([dialogue.image_id])
        if isinstance(loaded, str):
            left_out[loaded] += len(rounds)
            continue
        ranked += len(rounds)
        for row, ranks in zip(rounds, _rank(ranker, loaded[0], dialogue, rounds), strict=True):
            true_ranks += [] if row.true is None else [ranks[row.true]]
            relevance = (dense or {}).get((dialogue.image_id, row.number), ())
            gains += [metrics.ndcg(ranks, relevance)] if len(relevance) == len(ranks) else []
            if results is not None:
                results.append(
                    {"image_id": dialogue.image_id, "round_id": row.number, "ranks": ranks}
                )
    counts = {"rounds": ranked, "compared": len(true_ranks), "left_out": left_out}
    known = [gain for gain in gains if gain is not None]
    whole = {} if dense is None else {"ndcg": fmean(known) if known else None}
    return counts | metrics.ranking(true_ranks) | whole


def _rank(
    ranker: DialogueRanker,
    picture: Tensor,
    dialogue: dialogue_file.DialogueRow,
    rounds: Sequence[dialogue_file.DialogueRound],
) -> list[list[int]]:
    """Compute the rank, from 1, of each candidate of each round, in the order of the file."""
    asked = [_asked(dialogue, row) for row in rounds]
    options = [row.options for row in rounds]
    ranked = ranker.rank(picture[None], asked, options, [0] * len(rounds))
    return [_ranks(candidates) for candidates in ranked]


def _asked(dialogue: dialogue_file.DialogueRow, row: dialogue_file.DialogueRound) -> Dialogue:
    before = [(r.question, r.answer) for r in dialogue.rounds if r.number < row.number]
    return Dialogue(dialogue.caption, before, row.question)


def _ranks(candidates: Sequence[RankedCandidate]) -> list[int]:
    ranks = [0] * len(candidates)
    for rank, candidate in enumerate(candidates, 1):
        ranks[candidate.index] = rank
    return ranks
