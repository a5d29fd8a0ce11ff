"""The toy world: pictures of coloured shapes in relations, with captions whose truth is known.

It stands in for the web where nothing can be downloaded: `write_toy_world` makes WebDataset shards
of pictures, a given fraction of them under a wrong caption, and keeps the truth in each sidecar.
Each relation is laid out first and the boxes after it. Captions read the relation, while `is_true`
reads the boxes alone, so that the one checks the other.
"""

import io
import json
import math
import random
import re
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from PIL import Image, ImageDraw
from pydantic import Field, TypeAdapter

from pipeline.config import Config
from pipeline.toy.layout import INVERSE, RELATIONS, Box, Relation, holds, place_one, place_two
from pipeline.toy.shapes import COLOURS, OUTLINES, SHAPES, Rgb

Kind = Literal["true", "hard", "easy"]

_NOUNS = [(colour, shape) for colour in COLOURS for shape in SHAPES]
Kinds = Literal[2, 4, 8]

_OVERSAMPLE = 4
_RING_WIDTH = 0.24  # of the box's side
_HARD_SHARE = 0.5


@dataclass(frozen=True)
class Thing:
    """One object; `box` is (left, top, right, bottom) in fractions of the picture's side."""

    colour: str
    shape: str
    box: Box


@dataclass(frozen=True)
class Scene:
    """What a picture shows; `relation` is the first thing's to the second, if there is one."""

    things: tuple[Thing, ...]
    relation: Relation | None
    background: Rgb


@dataclass(frozen=True)
class ToySample:
    """One picture's scene, the text that it is published with, and the truth about that text."""

    scene: Scene
    text: str
    true_caption: str
    kind: Kind


_SCENE = TypeAdapter(Scene)  # made once: building it costs more than using it


class ToyWorldConfig(Config):
    """What to write; `noise` is the fraction of samples whose caption is wrong."""

    samples: int = Field(default=1_000, ge=1)
    samples_per_shard: int = Field(default=250, ge=1)
    noise: float = Field(default=0.4, ge=0, le=1)
    seed: int = 0
    image_px: int = Field(default=64, ge=32, le=1024)
    image_format: Literal["png", "jpeg"] = "png"
    things: Literal[1, 2] = 2
    kinds: Kinds = Field(default=8, description="colours, and shapes, that there are")
    all_texts: bool = Field(default=False, description="list all true captions in the sidecar")


def scene(rng: random.Random, things: int = 2, kinds: Kinds = 8) -> Scene:
    """Draw a scene of one or two things, which differ in colour, in shape or in both."""
    nouns = rng.sample(nouns_of(kinds), things)
    relation = rng.choice(RELATIONS) if things == 2 else None
    boxes = place_two(relation, rng) if relation else [place_one(rng)]
    shade = rng.randint(228, 250)
    red, green, blue = (shade + rng.randint(-8, 5) for _ in range(3))
    placed = tuple(Thing(*noun, box) for noun, box in zip(nouns, boxes, strict=True))
    return Scene(placed, relation, (red, green, blue))


def nouns_of(kinds: Kinds) -> list[tuple[str, str]]:
    """List what there is in a world of fewer kinds: colours and shapes far apart."""
    colours, shapes = _colours(kinds), _shapes(kinds)
    return [noun for noun in _NOUNS if noun[0] in colours and noun[1] in shapes]


def _colours(kinds: Kinds) -> list[str]:
    return list(COLOURS)[:: len(COLOURS) // kinds]


def _shapes(kinds: Kinds) -> tuple[str, ...]:
    return SHAPES[:: len(SHAPES) // kinds]


def draw(scene: Scene, px: int = 64) -> Image.Image:
    """Paint a scene as an RGB picture of `px` by `px`, smooth at the edges."""
    scale = px * _OVERSAMPLE
    canvas = Image.new("RGB", (scale, scale), scene.background)
    pen = ImageDraw.Draw(canvas)
    for thing in scene.things:
        left, top, right, bottom = (edge * scale for edge in thing.box)
        side, colour = right - left, COLOURS[thing.colour]
        if thing.shape == "circle":
            pen.ellipse((left, top, right, bottom), fill=colour)
        elif thing.shape == "ring":
            width = round(side * _RING_WIDTH)
            pen.ellipse((left, top, right, bottom), outline=colour, width=width)
        else:
            outline = OUTLINES[thing.shape]
            pen.polygon([(left + x * side, top + y * side) for x, y in outline], fill=colour)
    return canvas.reduce(_OVERSAMPLE)


def captions(scene: Scene) -> list[str]:
    """Every sentence that the world writes about a scene; all are true of it."""
    nouns = [_noun(thing.colour, thing.shape) for thing in scene.things]
    if scene.relation is None:
        return _sentences_of_one(nouns[0])
    first, second = nouns
    return [
        *_sentences_of_two(first, scene.relation, second),
        *_sentences_of_two(second, INVERSE[scene.relation], first),
    ]


def caption(scene: Scene, rng: random.Random) -> str:
    """One of the scene's true captions."""
    return rng.choice(captions(scene))


def _noun(colour: str, shape: str) -> str:
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {shape}"


def _sentences_of_one(noun: str) -> list[str]:
    return [f"{noun} on a plain background", f"a plain background with {noun}"]


def _sentences_of_two(first: str, relation: Relation, second: str) -> list[str]:
    return [f"{first} {relation} {second}", f"{first} with {second} {INVERSE[relation]} it"]


def wrong_caption(
    shown: Scene, rng: random.Random, kinds: Kinds = 8
) -> tuple[str, Literal["hard", "easy"]]:
    """A caption that is false of the scene shown, and its kind.

    A hard one has a single colour, shape or relation changed; an easy one is another scene's. Both
    are sentences that some picture of the world could bear, so the text alone gives nothing away.
    """
    kind: Literal["hard", "easy"] = "hard" if rng.random() < _HARD_SHARE else "easy"
    while True:
        if kind == "hard":
            other = _altered(shown, rng, kinds)
        else:
            other = scene(rng, len(shown.things), kinds)
        text = caption(other, rng)
        # No scene has two things alike, so a caption that names such would betray itself.
        unlike = len({(thing.colour, thing.shape) for thing in other.things}) == len(other.things)
        if unlike and not is_true(text, shown):
            return text, kind


def _altered(shown: Scene, rng: random.Random, kinds: Kinds) -> Scene:
    """The scene with one attribute or its relation changed; for captions only, boxes stay put."""
    change = rng.choice(("colour", "shape", "relation")[: 3 if shown.relation else 2])
    if change == "relation":
        others = [relation for relation in RELATIONS if relation != shown.relation]
        return replace(shown, relation=rng.choice(others))
    things = list(shown.things)
    index = rng.randrange(len(things))
    if change == "colour":
        things[index] = replace(things[index], colour=rng.choice(_colours(kinds)))
    else:
        things[index] = replace(things[index], shape=rng.choice(_shapes(kinds)))
    return replace(shown, things=tuple(things))


_LEAD = r"(?:a picture of |there is )?"
_NAMED = rf"(?:an?|the|one) ((?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)}))"
_RELATED = r"(?:is )?(?:to the (?=left|right))?(above|below|left of|right of)"
_ALONE = re.compile(rf"{_LEAD}(?:a plain background with )?{_NAMED}(?: on a plain background)?")
_BOTH = re.compile(rf"{_LEAD}{_NAMED} and {_NAMED}(?: on a plain background)?")
_DIRECT = re.compile(rf"{_LEAD}{_NAMED} {_RELATED} {_NAMED}")
_TURNED = re.compile(rf"{_LEAD}{_NAMED} with {_NAMED} {_RELATED} it")


def is_true(text: str, scene: Scene) -> bool:
    """Whether a sentence is true of a scene; one that cannot be read is not true.

    It reads more than `captions` writes ("there is", "the … is to the left of the …", one thing or
    both without a relation), since a model may shorten or mix what it has learned.
    """
    words = " ".join(text.lower().rstrip(" .").split())
    names = {f"{thing.colour} {thing.shape}": thing.box for thing in scene.things}
    if match := _ALONE.fullmatch(words):
        return match[1] in names
    if match := _BOTH.fullmatch(words):
        return match[1] != match[2] and match[1] in names and match[2] in names
    if match := _DIRECT.fullmatch(words):
        subject, relation, other = match.groups()
    elif match := _TURNED.fullmatch(words):
        other, subject, relation = match.groups()
    else:
        return False
    return subject in names and other in names and holds(relation, names[subject], names[other])


def corpus() -> list[str]:
    """Sentences of every form that hold every word, and the captioner's prompt: for a tokenizer."""
    nouns = [_noun(*noun) for noun in _NOUNS]
    lines = [f"a picture of {noun}" for noun in nouns]
    for noun, other in zip(nouns, reversed(nouns), strict=True):
        lines += _sentences_of_one(noun)
        for relation in RELATIONS:
            lines += _sentences_of_two(noun, relation, other)
    return lines


def vocabulary() -> list[str]:
    """Every word of the world, sorted."""
    return sorted({word for line in corpus() for word in line.split()})


def toy_sample(index: int, is_noisy: bool, config: ToyWorldConfig) -> ToySample:
    """Make sample `index` of a world.

    Scene and true caption depend on the seed, the index, `things` and `kinds` only, so that worlds
    with different noise show the same pictures.
    """
    rng = random.Random(f"{config.seed}/{index}")
    shown = scene(rng, config.things, config.kinds)
    true_caption = caption(shown, rng)
    if not is_noisy:
        return ToySample(shown, true_caption, true_caption, "true")
    text, kind = wrong_caption(shown, rng, config.kinds)
    return ToySample(shown, text, true_caption, kind)


def noisy_flags(config: ToyWorldConfig) -> bytearray:
    """One byte per sample, 1 where its caption is wrong; more noise only adds to the ones."""
    count = round(config.noise * config.samples)
    flags = bytearray(b"\1" * count + b"\0" * (config.samples - count))
    random.Random(f"{config.seed}/noise").shuffle(flags)
    return flags


def write_toy_world(folder: Path, config: ToyWorldConfig) -> list[Path]:
    """Write the world as WebDataset shards, the same bytes for the same config; return their paths.

    Tars in the folder that the world would not overwrite are an error: a reader of the folder would
    take them for part of it.
    """
    count = math.ceil(config.samples / config.samples_per_shard)
    paths = [folder / f"{number:05d}.tar" for number in range(count)]
    if others := sorted(set(folder.glob("*.tar")) - set(paths)):
        raise FileExistsError(
            f"{folder} holds {others[0].name}, which is not one of this world's {count} shards: "
            "remove it or choose an empty folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    noisy = noisy_flags(config)
    for number, path in enumerate(paths):
        first = number * config.samples_per_shard
        last = min(first + config.samples_per_shard, config.samples)
        _write_shard(path, range(first, last), noisy, config)
    return paths


def _write_shard(path: Path, indices: range, noisy: bytearray, config: ToyWorldConfig) -> None:
    unfinished = path.with_suffix(".partial")  # so that a break never leaves half a shard
    extension = "png" if config.image_format == "png" else "jpg"
    with tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as tar:
        for index in indices:
            sample = toy_sample(index, bool(noisy[index]), config)
            members = {
                extension: _encode(draw(sample.scene, config.image_px), config.image_format),
                "txt": sample.text.encode(),
                "json": json.dumps(_sidecar(sample, config)).encode(),
            }
            for name, content in members.items():
                header = tarfile.TarInfo(f"{index:09d}.{name}")  # mtime and owner are 0 by default
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
    unfinished.replace(path)


def _encode(image: Image.Image, image_format: str) -> bytes:
    buffer = io.BytesIO()
    # Full chroma: halved, as JPEG does by default, the colours of thin shapes run.
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if image_format == "jpeg" else {}
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def _sidecar(sample: ToySample, config: ToyWorldConfig) -> dict[str, object]:
    truth = {
        "true_caption": sample.true_caption,
        "is_noisy": sample.kind != "true",
        "kind": sample.kind,
        "scene": asdict(sample.scene),
    }
    listed = {"texts": captions(sample.scene)} if config.all_texts else {}
    return {"toy": truth, **listed}


def scene_from_truth(truth: Mapping[str, Any]) -> Scene:
    """Rebuild the scene from the `toy` record of a sidecar."""
    return _SCENE.validate_python(truth["scene"])
