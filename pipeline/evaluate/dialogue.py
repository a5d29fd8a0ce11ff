"""Evaluate dialogues (VisDial): at which place does the true answer come among the candidates?"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from models.roles.dialogue import DialogueRanker, RankedCandidate
from models.training.dialogue import Dialogue
from pipeline.evaluate import metrics
from pipeline.evaluate.rows import AnnotatedPictures
from shards.schema import SampleReason
from shards.training import dialogue_file

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
    pictures, left_out = AnnotatedPictures(images, ranker.preprocess), Counter[str]()
    numbers = dialogue_file.pictures_by_number(images)
    places: list[int] = []
    gains: list[float] = []
    ranked = 0
    for dialogue in dialogues:
        rounds = [one for one in dialogue.rounds if one.options]
        left_out.update({NO_CANDIDATES: len(dialogue.rounds) - len(rounds)})
        name = numbers.get(dialogue.image_id)
        loaded = SampleReason.IMAGE_MISSING if name is None else pictures.load([name])
        if isinstance(loaded, str):
            left_out[loaded] += len(rounds)
            continue
        asked = [_asked(dialogue, one) for one in rounds]
        found = ranker.rank(
            loaded[0][None], asked, [one.options for one in rounds], [0] * len(rounds)
        )
        for one, candidates in zip(rounds, found, strict=True):
            ranked += 1
            own = _places(candidates)
            if one.true is not None:
                places.append(own[one.true])
            relevance = (dense or {}).get((dialogue.image_id, one.number), ())
            if len(relevance) == len(own) and (gain := metrics.ndcg(own, relevance)) is not None:
                gains.append(gain)
            if results is not None:
                results.append(
                    {"image_id": dialogue.image_id, "round_id": one.number, "ranks": own}
                )
    counts = {"rounds": ranked, "compared": len(places), "left_out": dict(+left_out)}
    whole = {} if dense is None else {"ndcg": fmean(gains) if gains else None}
    return counts | metrics.ranking(places) | whole


def _asked(dialogue: dialogue_file.DialogueRow, one: dialogue_file.DialogueRound) -> Dialogue:
    before = [(r.question, r.answer) for r in dialogue.rounds if r.number < one.number]
    return Dialogue(dialogue.caption, before, one.question)


def _places(candidates: Sequence[RankedCandidate]) -> list[int]:
    """Give each candidate's place, from 1, in the order of the file."""
    places = [0] * len(candidates)
    for place, candidate in enumerate(candidates, 1):
        places[candidate.index] = place
    return places
