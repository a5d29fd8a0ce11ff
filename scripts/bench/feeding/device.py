"""A device that computes nothing: it sleeps, and remembers when."""

import time
from collections.abc import Sequence

from torch import Tensor

from models.blip.preprocess import Preprocess
from models.roles.captioner import Caption
from models.roles.filter import Filter, Score


class Device:
    """Both models at once; it sleeps for half of an image's time in each, and remembers when."""

    digest, preprocess, scores = "0" * 64, Preprocess(384, 384), Filter.scores

    def __init__(self, ms: float) -> None:
        self._image_s = ms / 2e3
        self.busy: list[tuple[float, float]] = []

    def caption(self, _: Tensor, keys: Sequence[str], count: int) -> list[list[Caption]]:
        """Write the one caption."""
        self._work(len(keys))
        return [[Caption("a picture of a thing", -1.0, 5, False)] * count for _ in keys]

    def score(self, _: Tensor, texts: Sequence[Sequence[str]]) -> list[list[Score]]:
        """Give the one score."""
        self._work(len(texts))
        return [[Score(0.7, 1.0, 0.3, 5, False) for _ in rows] for rows in texts]

    def count_tokens(self, text: str) -> int:
        """Count words."""
        return len(text.split())

    def _work(self, images: int) -> None:
        begun = time.monotonic()
        if self._image_s:
            time.sleep(images * self._image_s)
        self.busy.append((begun, time.monotonic()))
