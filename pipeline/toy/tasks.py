"""The toy world's tasks, in the field's annotation files: captions, questions, and statements.

Pictures lie in `images/` beside the file. Captions are all that the world writes about a picture.
Questions ask for a colour, a shape, a relation, a count, or yes or no; of ten annotators one may
err. Statements speak of either picture or of both, and half of them are true.
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import Field

from pipeline.config import Config
from pipeline.toy import world as toy_world
from pipeline.toy.layout import INVERSE
from pipeline.toy.world import Kinds, Scene, Thing, captions, draw, nouns_of, scene

ANNOTATORS = 10
_DISSENT = 0.2  # probability that one annotator says something else

Asked = tuple[str, str, str]  # kind, question, answer
Pair = tuple[Scene, Scene]
Claim = Callable[[Pair, str, str], tuple[str, bool]]  # of a colour or a shape: words and truth


class ToyTasksConfig(Config):
    """How much to write; a sample is a picture with its questions, or a statement with its pair."""

    samples: int = Field(default=500, ge=1)
    seed: int = 0
    image_px: int = Field(default=64, ge=32, le=1024)
    kinds: Kinds = 4
    questions: int = Field(default=3, ge=1, description="of each picture, at most")


def corpus() -> list[str]:
    """Write sentences that hold every word of the world and of its questions and statements."""
    rng, lines = random.Random(0), toy_world.corpus()
    for _ in range(200):
        shown = scene(rng, 2)
        lines += [f"{question} {answer}" for _, question, answer in questions(shown, rng, 8)]
    lines += [" ".join(answers) for answers in _ANSWERS.values()]
    return lines + [claim((shown, shown), *noun)[0] for claim in _CLAIMS for noun in nouns_of(8)]


def write_captions(folder: Path, config: ToyTasksConfig) -> Path:
    """Write pictures and `captions.json` in the form of Karpathy's split; return its path."""
    rows: list[dict[str, Any]] = []
    for index in range(config.samples):
        rng = random.Random(f"{config.seed}/caption/{index}")
        shown = scene(rng, rng.choice((1, 2)), config.kinds)
        name = picture(folder, f"{index:06d}.png", shown, config.image_px)
        rows.append({"image": name, "caption": captions(shown), "scene": asdict(shown)})
    return write(folder / "captions.json", rows)


def write_questions(folder: Path, config: ToyTasksConfig) -> Path:
    """Write pictures and `vqa.json` in the form of VQA's training files; return the file's path.

    Each row says in `kind` what it asks for, and in `scene` what is to be seen: no loader of the
    field reads either.
    """
    rows: list[dict[str, Any]] = []
    for index in range(config.samples):
        rng = random.Random(f"{config.seed}/question/{index}")
        shown = scene(rng, rng.choice((1, 2)), config.kinds)
        name = picture(folder, f"{index:06d}.png", shown, config.image_px)
        for kind, question, answer in _some(list(questions(shown, rng, config.kinds)), rng, config):
            rows.append(
                {
                    "dataset": "vqa",
                    "image": name,
                    "question": question,
                    "question_id": len(rows),
                    "answer": _annotators(answer, kind, rng, config.kinds),
                    "kind": kind,
                    "scene": asdict(shown),
                }
            )
    return write(folder / "vqa.json", rows)


def _some(asked: list[Asked], rng: random.Random, config: ToyTasksConfig) -> list[Asked]:
    """Choose questions, both about the relation first: they are the slowest to be learned."""
    rng.shuffle(asked)
    return sorted(asked, key=lambda row: row[0] != "relation")[: config.questions]


def questions(shown: Scene, rng: random.Random, kinds: Kinds) -> Iterator[Asked]:
    """Yield what can be asked of a scene, with its kind and its true answer."""
    colours, shapes = ([getattr(t, part) for t in shown.things] for part in ("colour", "shape"))
    for thing in shown.things:
        if shapes.count(thing.shape) == 1:
            yield "colour", f"what color is the {thing.shape}?", thing.colour
        if colours.count(thing.colour) == 1:
            yield "shape", f"what shape is the {thing.colour} thing?", thing.shape
    if shown.relation:
        first, second = map(_noun, shown.things)
        yield "relation", f"where is the {first} compared to the {second}?", shown.relation
        turned = INVERSE[shown.relation]
        yield "relation", f"where is the {second} compared to the {first}?", turned
    yield "count", "how many things are there?", str(len(shown.things))
    colour, _ = rng.choice(nouns_of(kinds))
    yield "count", f"how many {colour} things are there?", str(colours.count(colour))
    wanted = _wanted_noun(shown, rng, kinds)
    answer = "yes" if wanted in map(_noun, shown.things) else "no"
    yield "yes/no", f"is there a {wanted}?", answer


def write_statements(folder: Path, config: ToyTasksConfig) -> Path:
    """Write pictures and `nlvr.json` in the form of NLVR2's files; return the file's path."""
    rows: list[dict[str, Any]] = []
    for index in range(config.samples):
        rng = random.Random(f"{config.seed}/statement/{index}")
        label, claim = rng.random() < 0.5, rng.choice(_CLAIMS)
        pair, sentence = _draw_pair(claim, rng, config.kinds, is_true=label)
        names = [
            picture(folder, f"{index:06d}-{side}.png", shown, config.image_px)
            for side, shown in zip(("left", "right"), pair, strict=True)
        ]
        shown = [asdict(each) for each in pair]
        row = {"images": names, "sentence": sentence, "label": str(label), "scenes": shown}
        rows.append(row)
    return write(folder / "nlvr.json", rows)


def _draw_pair(
    claim: Claim, rng: random.Random, kinds: Kinds, *, is_true: bool
) -> tuple[Pair, str]:
    """Draw two scenes of which a claim is true, or false: no claim gives its label away."""
    while True:
        pair = (scene(rng, rng.choice((1, 2)), kinds), scene(rng, rng.choice((1, 2)), kinds))
        sentence, truth = claim(pair, *rng.choice(nouns_of(kinds)))
        if truth == is_true:
            return pair, sentence


def _left_colour(pair: Pair, colour: str, _: str) -> tuple[str, bool]:
    return f"the left picture shows something {colour}", _shows(pair[0], colour)


def _right_shape(pair: Pair, _: str, shape: str) -> tuple[str, bool]:
    return f"the right picture shows a {shape}", _shows(pair[1], shape)


def _both(pair: Pair, colour: str, _: str) -> tuple[str, bool]:
    return f"both pictures show something {colour}", all(_shows(s, colour) for s in pair)


def _neither(pair: Pair, _: str, shape: str) -> tuple[str, bool]:
    return f"there is no {shape} in either picture", not any(_shows(s, shape) for s in pair)


_CLAIMS: tuple[Claim, ...] = (_left_colour, _right_shape, _both, _neither)


def _shows(shown: Scene, word: str) -> bool:
    return any(word in (thing.colour, thing.shape) for thing in shown.things)


def _noun(thing: Thing) -> str:
    return f"{thing.colour} {thing.shape}"


def _wanted_noun(shown: Scene, rng: random.Random, kinds: Kinds) -> str:
    """Choose a thing to ask for: in half of all cases one that is there."""
    if rng.random() < 0.5:
        return _noun(rng.choice(shown.things))
    return " ".join(rng.choice(nouns_of(kinds)))


def _annotators(answer: str, kind: str, rng: random.Random, kinds: Kinds) -> list[str]:
    """Let ten people answer, one of whom may err."""
    answers = [answer] * ANNOTATORS
    if rng.random() < _DISSENT:
        others = _ANSWERS.get(kind) or [noun[kind == "shape"] for noun in nouns_of(kinds)]
        answers[-1] = rng.choice(others)
    return answers


_ANSWERS: dict[str, list[str]] = {
    "relation": [*INVERSE],
    "count": ["0", "1", "2"],
    "yes/no": ["yes", "no"],
}


def picture(folder: Path, name: str, shown: Scene, px: int) -> str:
    """Draw a scene into the folder's `images`; return the name below the folder."""
    path = folder / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(shown, px).save(path)
    return f"images/{name}"


def write(path: Path, rows: Any) -> Path:  # noqa: ANN401 - any JSON value
    """Write an annotation file; return its path."""
    path.write_text(json.dumps(rows, indent=0), encoding="utf-8")
    return path
