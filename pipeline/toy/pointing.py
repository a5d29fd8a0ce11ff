"""Does a map of attention point at what a word names? Asked of toy pictures of two things.

The peak of a map is the middle of its highest patch. It should fall into the box of the thing whose
colour and shape the words name; a guess would do so as often as boxes are large.
"""

import random
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import torch

from models.roles.attention_explainer import AttentionExplainer, Kind, WordMaps
from pipeline.toy.layout import Box
from pipeline.toy.world import Kinds, Thing, captions, draw, scene

NAMED = ("colour", "shape", "both")


@dataclass(frozen=True, slots=True)
class Pointing:
    """Shares of pictures whose peak falls into the right box, by the word whose map it is of.

    `both` is the mean of the colour's map and the shape's; `chance` the mean area of the boxes.
    """

    shares: dict[str, float]
    chance: float


def point(
    explainer: AttentionExplainer,
    count: int = 200,
    seed: int = 0,
    *,
    layer: int | None = None,
    kind: Kind = "gradcam",
    kinds: Kinds = 4,
) -> Pointing:
    """Measure how often the map of a thing's words peaks in its box, on pictures of two things."""
    hits: Counter[str] = Counter()
    areas = 0.0
    for index in range(count):
        rng = random.Random(f"{seed}/point/{index}")
        shown = scene(rng, 2, kinds)
        thing, text = rng.choice(shown.things), rng.choice(captions(shown))
        image = explainer.preprocess.resize(draw(shown))
        maps = noun_maps(explainer.match(image, text, layer=layer, kind=kind), thing)
        hits.update(name for name, values in maps.items() if inside(peak(values), thing.box))
        areas += (thing.box[2] - thing.box[0]) * (thing.box[3] - thing.box[1])
    return Pointing({name: hits[name] / count for name in NAMED}, areas / count)


def noun_maps(attention: WordMaps, thing: Thing) -> dict[str, torch.Tensor]:
    """Take the maps of a thing's colour, of its shape, and their mean."""
    index = list(pairwise(attention.words)).index((thing.colour, thing.shape))
    colour, shape = attention.maps[index], attention.maps[index + 1]
    return {"colour": colour, "shape": shape, "both": (colour + shape) / 2}


def peak(values: torch.Tensor) -> tuple[float, float]:
    """Return the middle of the highest patch, in shares of the picture's width and height."""
    rows, columns = values.shape
    row, column = divmod(int(values.argmax()), columns)
    return (column + 0.5) / columns, (row + 0.5) / rows


def inside(at: tuple[float, float], box: Box) -> bool:
    """Check that a point lies in a box."""
    left, top, right, bottom = box
    return left <= at[0] <= right and top <= at[1] <= bottom
