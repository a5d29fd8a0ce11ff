"""What one who sees nothing would reach in the toy tasks: the line that a model must pass."""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.toy.world import is_true, scene_from_truth

Rows = Sequence[Mapping[str, Any]]


def own_text(captions: Rows) -> float:
    """Give the probability that a text drawn from all is one of a picture's own."""
    texts = len({text for row in captions for text in row["caption"]})
    return sum(len(row["caption"]) for row in captions) / len(captions) / texts


def true_of_others(captions: Rows, draws: int = 5_000) -> float:
    """Give the share of captions of any picture that happen to be true of another."""
    rng = random.Random(0)
    pairs = (rng.sample(range(len(captions)), 2) for _ in range(draws))
    texts = ((one, rng.choice(captions[other]["caption"])) for one, other in pairs)
    return sum(is_true(text, scene_from_truth(captions[one])) for one, text in texts) / draws


def most_common(questions: Rows) -> dict[str, float]:
    """Give the share of the most common answer among all to each kind of question."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for row in questions:
        answers[row["kind"]].update(row["answer"])
    return {kind: max(own.values()) / own.total() for kind, own in answers.items()}
