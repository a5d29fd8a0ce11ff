"""Where does a filter look for a word? On 200 toy pictures of two things, by layer and kind of map.

    python scripts/check_attention.py [FILTER] [--out pictures.png]

FILTER is a folder, or a shipped checkpoint's name (default: tiny-filter). The picture shows some of
the maps, each with the box of the thing that its words name.
"""

import argparse
import random
from pathlib import Path
from typing import get_args

from PIL import Image, ImageDraw

from models.checkpoints import locate
from models.roles.attention_explainer import AttentionExplainer, Kind
from pipeline.explain.heatmap import heat
from pipeline.media.sheet import sheet, small
from pipeline.toy.pointing import NAMED, inside, noun_maps, peak, point
from pipeline.toy.world import captions, draw, scene

SHOWN, PX = 20, 192


def main() -> None:
    """Print a table, and draw."""
    parser = argparse.ArgumentParser(description="Where a filter looks for a word.")
    parser.add_argument("filter", nargs="?", default="tiny-filter")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    explainer = AttentionExplainer.load(locate.resolve(options.filter), dtype="fp32")
    print(f"| layer | map | {' | '.join(NAMED)} |\n| --- | --- |{' --- |' * len(NAMED)}")
    for layer in [None, *range(explainer.layers)]:
        for kind in get_args(Kind):
            pointing = point(explainer, options.pictures, options.seed, layer=layer, kind=kind)
            shares = " | ".join(f"{pointing.shares[name]:.3f}" for name in NAMED)
            print(f"| {'default' if layer is None else layer} | {kind} | {shares} |")
    print(f"\nboxes take {pointing.chance:.3f} of a picture")
    if options.out:
        options.out.write_bytes(sheet([example(explainer, n) for n in range(SHOWN)]))


def example(explainer: AttentionExplainer, number: int) -> tuple[str, Image.Image]:
    """Draw one map over its picture, with the box; the title tells whether it is hit."""
    rng = random.Random(f"example/{number}")
    shown = scene(rng, 2, 4)
    thing, text = rng.choice(shown.things), rng.choice(captions(shown))
    image = explainer.preprocess.resize(draw(shown))
    values = noun_maps(explainer.match(image, text), thing)["both"]
    picture = heat(small(draw(shown, PX)), values.numpy())
    left, top, right, bottom = (round(edge * PX) for edge in thing.box)
    ImageDraw.Draw(picture).rectangle((left, top, right, bottom), outline=(0, 160, 0), width=2)
    verdict = "hit" if inside(peak(values), thing.box) else "miss"
    return f"{thing.colour} {thing.shape}: {verdict}", picture


if __name__ == "__main__":
    main()
