"""Draw where a model looks: the picture, then the picture again under a heat map for each word.

Words come from hostile captions: what cannot be drawn or would turn the line is written out.
"""

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from models.roles.attender import Attender, WordMaps
from pipeline.printable import cut, visible

CELL = 224  # longest side of a picture in the grid, in pixels
MOST_WORDS = 59  # with the picture itself, twelve rows of five
_ACROSS = 5
_GAP = 12
_LABEL = 28  # height of the line under a picture
_FONT_SIZE = 16
_MOST_CHARACTERS = 60
_HEAT = 0.7  # share of colour where a map is at its highest
_PAPER, _INK = (255, 255, 255), (20, 20, 20)

# Is a map drawn against the highest value of its own, or of all words of the text?
Scale = Literal["word", "text"]


@dataclass(frozen=True, slots=True)
class Overlay:
    """A PNG, and the words it shows; `left_out` counts those it had no room for."""

    png: bytes
    words: list[str]
    left_out: int


def attend_match(
    attender: Attender, picture: Image.Image, text: str, *, layer: int | None = None
) -> Overlay:
    """Draw where a filter looks for each word of a text."""
    image = attender.preprocess.resize(picture.convert("RGB"))
    return overlay(picture, attender.match(image, text, layer=layer))


def attend_caption(
    attender: Attender, picture: Image.Image, text: str, *, layer: int | None = None
) -> Overlay:
    """Draw where a captioner looks as it writes each word of a text."""
    image = attender.preprocess.resize(picture.convert("RGB"))
    return overlay(picture, attender.caption(image, text, layer=layer))


def overlay(picture: Image.Image, found: WordMaps, scale: Scale = "word") -> Overlay:
    """Draw the grid: the picture under the mean of all maps, then one cell for each word."""
    words, maps = found.words[:MOST_WORDS], _numbers(found.maps[:MOST_WORDS])
    small = picture.convert("RGB")
    small.thumbnail((CELL, CELL))
    width, height = small.size
    whole = float(maps.max(initial=0)) if scale == "text" else None
    mean = f"all words ({found.score:.2f})"
    cells = [("picture", small), (mean, heat(small, _numbers(found.mean)))]
    cells += [(word, heat(small, one, whole)) for word, one in zip(words, maps, strict=True)]
    rows = -(-len(cells) // _ACROSS)
    step_x, step_y = max(width, CELL) + _GAP, height + _LABEL + _GAP
    size = (min(len(cells), _ACROSS) * step_x + _GAP, rows * step_y + _GAP)
    page = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(page)
    for number, (label, cell) in enumerate(cells):
        x, y = _GAP + number % _ACROSS * step_x, _GAP + number // _ACROSS * step_y
        page.paste(cell, (x, y))
        draw.text((x, y + height + 4), fit(label, step_x - _GAP), fill=_INK, font=_font())
    written = io.BytesIO()
    page.save(written, "PNG")
    return Overlay(written.getvalue(), words, len(found.words) - len(words))


def heat(picture: Image.Image, values: np.ndarray, highest: float | None = None) -> Image.Image:
    """Colour a picture by a map (rows, columns), stretched over it; a map of zeros leaves it."""
    import matplotlib as mpl

    highest = float(values.max(initial=0)) if highest is None else highest
    if highest <= 0:
        return picture.copy()
    spread = Image.fromarray(np.float32(values / highest)).resize(
        picture.size, Image.Resampling.BICUBIC
    )
    level = np.clip(np.asarray(spread), 0, 1)  # (H, W)
    colours = mpl.colormaps["inferno"](level)[..., :3] * 255
    share = _HEAT * level[..., None]
    # grey where nothing is hot, so that the picture's own colours are not taken for heat
    grey = np.asarray(picture.convert("L").convert("RGB"), dtype=np.float64)
    return Image.fromarray(np.uint8((1 - share) * grey + share * colours))


def fit(label: str, width: int) -> str:
    """Write a hostile word so that it can be drawn on one line of `width` pixels."""
    shown = "".join(map(_drawn, cut(label, _MOST_CHARACTERS) or ""))
    if _font().getlength(shown) <= width:
        return shown
    while shown and _font().getlength(shown + "…") > width:
        shown = shown[:-1]
    return shown + "…"


def _drawn(character: str) -> str:
    shown = visible(character)
    if all(ord(one) in _glyphs() for one in shown):
        return shown
    return f"\\u{{{ord(character):x}}}"  # the font has no drawing of it


def _numbers(maps: Tensor) -> np.ndarray:
    return np.nan_to_num(maps.float().numpy(), nan=0, posinf=0, neginf=0)


def _font_path() -> Path:
    import matplotlib as mpl

    return Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@cache
def _font() -> ImageFont.FreeTypeFont:
    # basic layout: the words' characters stand in the order in which they came
    return ImageFont.truetype(str(_font_path()), _FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(_font_path())).get_charmap())
