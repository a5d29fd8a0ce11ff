"""A scorer of one's own: all that capfilt asks of one, in a file that runs alone.

    python examples/scorer.py PICTURE TEXT [TEXT…]

It looks how bright a text says a picture is. docs/extend.md says how recipes come to know it.
"""

import sys
from collections.abc import Sequence

from PIL import Image, ImageStat

from models.guests.picture import Prepared, bounded
from models.scorers.scorer import Scorer, TextScores

BRIGHT = {"bright", "light", "sunny", "white", "snow"}
DARK = {"dark", "night", "black", "shadow"}


class BrightnessScorer:
    """Scores each text by two facts of the pair: how well it tells the light, and how sure it is.

    A score never depends on the other texts at hand, nor on the batch.
    """

    digest = "brightness 1"  # another one, whenever the same pair may get another score
    scores = ("light", "words")
    prepare_key = "mean brightness"

    def prepare(self, picture: Image.Image) -> Prepared:
        """Decode threads call this, several at once: no state is changed."""
        grey = bounded(picture, 1 << 16).convert("L")
        return Prepared(ImageStat.Stat(grey).mean[0] / 255, 8)

    def score(
        self, batch: Sequence[Prepared], texts: Sequence[Sequence[str]]
    ) -> list[list[TextScores]]:
        """One thread calls this: a list of texts for each picture, some of them empty."""
        return [
            [self._judge(prepared.content, text) for text in group]
            for prepared, group in zip(batch, texts, strict=True)
        ]

    def _judge(self, brightness: float, text: str) -> TextScores:
        words = text.lower().split()
        bright, dark = (sum(word in known for word in words) for known in (BRIGHT, DARK))
        told = bright + dark
        light = (bright * brightness + dark * (1 - brightness)) / told if told else 0.5
        return TextScores((light, float(told)), tokens=len(words), truncated=False)


if __name__ == "__main__":
    scorer: Scorer = BrightnessScorer()
    prepared = scorer.prepare(Image.open(sys.argv[1]))
    for text, told in zip(sys.argv[2:], scorer.score([prepared], [sys.argv[2:]])[0], strict=True):
        print(text, dict(zip(scorer.scores, told.values, strict=True)))
