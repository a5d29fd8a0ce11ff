"""A sheet of pictures, each with a line under it, as a PNG that people can look at.

Lines come from hostile captions and names: what cannot be drawn or would turn the line is written
out.
"""

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from pipeline.printable import cut, visible

CELL = 224  # longest side of a picture, in pixels
ACROSS = 5
GAP = 12
_LABEL = 28  # height of the line under a picture
_FONT_SIZE = 16
_MOST_CHARACTERS = 60
_PAPER, _INK = (255, 255, 255), (20, 20, 20)

Ink = tuple[int, int, int]


def small(picture: Image.Image) -> Image.Image:
    """Copy a picture, no larger than a cell."""
    copy = picture.convert("RGB")
    copy.thumbnail((CELL, CELL))
    return copy


def sheet(
    cells: Sequence[tuple[str, Image.Image]],
    across: int = ACROSS,
    inks: Sequence[Ink | None] | None = None,
) -> bytes:
    """Draw small pictures in rows, each over its line, whose colour may be given, as a PNG."""
    heights = [picture.height for _, picture in cells] or [0]
    step_x = max([CELL, *(picture.width for _, picture in cells)]) + GAP
    step_y = max(heights) + _LABEL + GAP
    rows = -(-len(cells) // across)
    size = (min(len(cells), across) * step_x + GAP, rows * step_y + GAP)
    page = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(page)
    for number, (label, picture) in enumerate(cells):
        x, y = GAP + number % across * step_x, GAP + number // across * step_y
        page.paste(picture, (x, y))
        ink = (inks[number] if inks else None) or _INK
        draw.text((x, y + picture.height + 4), fit(label, step_x - GAP), fill=ink, font=font())
    written = io.BytesIO()
    page.save(written, "PNG")
    return written.getvalue()


def fit(label: str, width: int) -> str:
    """Write a hostile word so that it can be drawn on one line of `width` pixels."""
    shown = "".join(map(_drawn, cut(label, _MOST_CHARACTERS) or ""))
    if font().getlength(shown) <= width:
        return shown
    while shown and font().getlength(shown + "…") > width:
        shown = shown[:-1]
    return shown + "…"


def _drawn(character: str) -> str:
    shown = visible(character)
    if all(ord(sign) in _glyphs() for sign in shown):
        return shown
    return f"\\u{{{ord(character):x}}}"  # the font has no drawing of it


def _font_path() -> Path:
    import matplotlib as mpl

    return Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@cache
def font() -> ImageFont.FreeTypeFont:
    """Load the font of the lines."""
    # basic layout: the words' characters stand in the order in which they came
    return ImageFont.truetype(str(_font_path()), _FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(_font_path())).get_charmap())
