"""Dialogues about the toy world's pictures, in the form of VisDial 1.0.

A caption names one of two things by its shape alone; the questions say "it" and "the other thing",
so that nobody can answer them who has not read what came before.
"""

import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.toy.layout import INVERSE
from pipeline.toy.tasks import ToyTasksConfig, picture, write
from pipeline.toy.world import Kinds, Scene, nouns_of, scene

ROUNDS = 4
OPTIONS = 10  # candidate answers of each round; VisDial has a hundred

Round = tuple[str, str]  # question, answer


def write_dialogues(folder: Path, config: ToyTasksConfig) -> Path:
    """Write pictures and `visdial.json`; return the file's path.

    Pictures are named by their number, as VisDial's are. Of each round's candidates one is true.
    """
    pool = answers(config.kinds)
    questions: dict[str, int] = {}
    dialogs: list[dict[str, Any]] = []
    for index in range(config.samples):
        rng = random.Random(f"{config.seed}/dialogue/{index}")
        shown, about = _two_shapes(rng, config.kinds)
        picture(folder, f"VisualDialog_toy_{index:012d}.png", shown, config.image_px)
        rounds = list(talk(shown, about, rng, config.kinds))
        asked = rng.sample(rounds, ROUNDS)
        dialog = [_candidates(*pair, pool, questions, rng) for pair in asked]
        caption = f"a picture with a {shown.things[about].shape}"
        dialogs.append(
            {"image_id": index, "caption": caption, "dialog": dialog, "scene": asdict(shown)}
        )
    data = {"questions": list(questions), "answers": pool, "dialogs": dialogs}
    return write(folder / "visdial.json", {"version": "1.0", "split": "toy", "data": data})


def talk(shown: Scene, about: int, rng: random.Random, kinds: Kinds) -> Iterator[Round]:
    """Yield what can be asked of a scene of two things when one of them is spoken of."""
    if shown.relation is None:
        raise ValueError("a dialogue is about two things, and this scene shows one")
    topic, other = shown.things[about], shown.things[1 - about]
    relation = INVERSE[shown.relation] if about == 0 else shown.relation
    yield "what color is it?", topic.colour
    yield "what color is the other thing?", other.colour
    yield "what shape is the other thing?", other.shape
    yield "where is the other thing?", f"{relation} it"
    colour = rng.choice([topic.colour, *(noun[0] for noun in nouns_of(kinds))])
    yield f"is it {colour}?", "yes" if colour == topic.colour else "no"


def answers(kinds: Kinds) -> list[str]:
    """List all that can be answered, sorted."""
    words = {word for noun in nouns_of(kinds) for word in noun}
    return sorted({"yes", "no", *(f"{relation} it" for relation in INVERSE), *words})


def corpus() -> list[str]:
    """Write sentences that hold every word of the dialogues."""
    rng = random.Random(0)
    shown, about = _two_shapes(rng, 8)
    lines = [f"{question} {answer}" for question, answer in talk(shown, about, rng, 8)]
    return [*lines, *answers(8), "a picture with a"]


def _two_shapes(rng: random.Random, kinds: Kinds) -> tuple[Scene, int]:
    """Draw two things of different shapes, and choose the one that is spoken of."""
    while True:
        shown = scene(rng, 2, kinds)
        if shown.things[0].shape != shown.things[1].shape:
            return shown, rng.randrange(2)


def _candidates(
    question: str, answer: str, pool: list[str], questions: dict[str, int], rng: random.Random
) -> dict[str, Any]:
    """Put a round's true answer among others; all are numbers of the file's lists."""
    true = pool.index(answer)
    others = [number for number in range(len(pool)) if number != true]
    options = [true, *rng.sample(others, OPTIONS - 1)]
    rng.shuffle(options)
    return {
        "question": questions.setdefault(question, len(questions)),
        "answer": true,
        "answer_options": options,
        "gt_index": options.index(true),
    }
