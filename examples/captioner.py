"""A captioner of one's own: all that capfilt asks of one, in a file that runs alone.

    python examples/captioner.py PICTURE [PICTURE…]

It names the colours of a picture. docs/extend.md says how recipes come to know it.
"""

import math
import sys
from collections import Counter
from collections.abc import Sequence

from PIL import Image

from models.captioners.captioner import Caption, Captioner
from models.guests.picture import Prepared, bounded

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 200),
}
SIDE = 16  # pixels, of what is looked at


def nearest(pixel: tuple[int, int, int]) -> str:
    """Name the colour that is nearest to a pixel."""
    return min(COLOURS, key=lambda name: math.dist(COLOURS[name], pixel))


class ColourCaptioner:
    """Writes one caption for each of a picture's colours, the most frequent first."""

    digest = "colours 1"  # another one, whenever the same picture may get another caption
    prepare_key = f"{SIDE} x {SIDE}"

    def prepare(self, picture: Image.Image) -> Prepared:
        """Decode threads call this, several at once: no state is changed."""
        small = bounded(picture, 1 << 20).resize((SIDE, SIDE))
        return Prepared(small.getcolors(SIDE * SIDE), 3 * SIDE * SIDE)

    def caption(
        self, batch: Sequence[Prepared], keys: Sequence[str], count: int
    ) -> list[list[Caption]]:
        """One thread calls this, batch after batch; `keys` seed what is drawn, nothing here."""
        return [self._write(prepared.content, count) for prepared in batch]

    def _write(self, pixels: list[tuple[int, tuple[int, int, int]]], count: int) -> list[Caption]:
        shares: Counter[str] = Counter()
        for number, pixel in pixels:
            shares[nearest(pixel)] += number
        names = [name for name, _ in shares.most_common()] * count  # enough, at any rate
        return [Caption(f"a picture with much {name}", truncated=False) for name in names[:count]]


if __name__ == "__main__":
    captioner: Captioner = ColourCaptioner()
    prepared = [captioner.prepare(Image.open(path)) for path in sys.argv[1:]]
    for path, texts in zip(sys.argv[1:], captioner.caption(prepared, sys.argv[1:], 2), strict=True):
        print(path, *(text.text for text in texts), sep="\n  ")
