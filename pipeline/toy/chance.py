"""What a model that sees nothing would reach in the toy tasks: the line that one must pass."""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.toy.world import is_true, scene_from_truth

Rows = Sequence[Mapping[str, Any]]


def own_text(captions: Rows) -> float:
    """Compute the probability that a text drawn from all is one of a picture's own."""
    texts = len({text for row in captions for text in row["caption"]})
    return sum(len(row["caption"]) for row in captions) / len(captions) / texts


def true_of_others(captions: Rows, draws: int = 5_000) -> float:
    """Estimate the share of captions of any picture that happen to be true of another."""
    rng = random.Random(0)
    true = 0
    for _ in range(draws):
        shown, other = (captions[index] for index in rng.sample(range(len(captions)), 2))
        true += is_true(rng.choice(other["caption"]), scene_from_truth(shown))
    return true / draws


def most_common(questions: Rows) -> dict[str, float]:
    """Compute the share of the most common answer among all to each kind of question."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for row in questions:
        answers[row["kind"]].update(row["answer"])
    return {kind: max(counts.values()) / counts.total() for kind, counts in answers.items()}
