"""Wrong answers, for dialogues that are learned by match: other candidates, or others' answers."""

import random
from collections.abc import Sequence

from models.blip.tokenizer import normalise
from shards.training.annotation import SourceText


def wrong_answers(asked: Sequence[SourceText], count: int, seed: int) -> list[list[str]]:
    """Draw up to `count` wrong answers for each question of a batch.

    They are candidates of its own, or, where it has none, answers to the batch's other questions;
    each reads differently from the true answer and from the others that are drawn.
    """
    answers = [normalise(answer.text) for text in asked for answer in text.answers]
    drawn = []
    for row, text in enumerate(asked):
        right = {normalise(answer.text) for answer in text.answers}
        # a dict keeps the order that a set would lose, and the draw depends on it
        candidates = dict.fromkeys(map(normalise, text.options)) or dict.fromkeys(answers)
        pool = [candidate for candidate in candidates if candidate not in right]
        rng = random.Random(f"{seed}/{row}")
        drawn.append(rng.sample(pool, min(count, len(pool))))
    return drawn
