"""Run the models over batches: each picture is decoded once, and seen once by each model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.clean.caption import Captioner, caption
from pipeline.clean.export import WriteConfig, encode_jpeg
from pipeline.clean.lists import BlockList
from pipeline.clean.prepare import PreparedSample
from pipeline.clean.score import Scorer, score
from pipeline.clean.screen import NOTHING, Decode, ScreenConfig, screen
from shards.inputs.reader import RawSample
from shards.schema import SampleRow, TextRow

if TYPE_CHECKING:
    from torch import Tensor


class BatchModels:
    """A captioner and a scorer, with what they need of a sample and what they say of it.

    `candidates` captions are written for each picture.
    """

    def __init__(
        self,
        captioner: Captioner,
        scorer: Scorer,
        screening: ScreenConfig,
        writing: WriteConfig,
        candidates: int,
        blocked: BlockList = NOTHING,
    ) -> None:
        self._captioner, self._scorer = captioner, scorer
        self._screening, self._writing, self._candidates = screening, writing, candidates
        self._blocked = blocked

    def prepare(self, raw: RawSample, decode: Decode) -> PreparedSample:
        """Decode a sample once, for both models and for the clean shard; several threads may."""
        write = self._writing
        ways = dict.fromkeys((self._captioner.preprocess, self._scorer.preprocess))
        side = None
        if write.clean == "none" or write.images == "original":  # nobody wants it as large as it is
            side = max(max(way.width, way.height) for way in ways)
        count_tokens = self._scorer.count_tokens
        screened = screen(raw, self._screening, decode, count_tokens, side, self._blocked)
        if screened.image is None:
            return PreparedSample(screened)
        picture = screened.image
        views = tuple(way.resize(picture) for way in ways)  # one for both where they are equal
        image = b""
        if write.clean == "tar":
            image = encode_jpeg(picture) if write.images == "jpeg" else screened.original
        screened.image, screened.original = None, b""
        return PreparedSample(screened, views, image)

    def fill_in(
        self, shard: str, batch: Sequence[PreparedSample], views: "Sequence[Tensor]"
    ) -> int:
        """Fill in the texts of pictures; give the number of batches that the GPU could not hold.

        Such a batch is done in halves. `views`: uint8 (B, 3, H, W), one for both models or one for
        each.
        """
        splits, parts = 0, [slice(0, len(batch))]
        while parts:
            part = parts.pop()
            if self._has_filled_in(shard, batch[part], [view[part] for view in views]):
                continue
            # not while the error is handled, whose traceback holds what has filled the GPU
            _empty_cache()
            half = (part.start + part.stop) // 2
            parts += [slice(half, part.stop), slice(part.start, half)]
            splits += 1
        return splits

    def _has_filled_in(
        self, shard: str, batch: Sequence[PreparedSample], views: "Sequence[Tensor]"
    ) -> bool:
        import torch

        try:
            self._fill_in(shard, batch, views)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            return False
        return True

    def _fill_in(
        self, shard: str, batch: Sequence[PreparedSample], views: "Sequence[Tensor]"
    ) -> None:
        """Fill in the texts of pictures: the web's, the captioner's, all with their scores."""
        keys = [f"{shard}/{sample.screened.facts['key']}" for sample in batch]
        written = caption(self._captioner, views[0], keys, self._candidates)
        texts = [
            [*_web_rows(sample.screened.facts), *rows]
            for sample, rows in zip(batch, written, strict=True)
        ]
        scored = score(self._scorer, views[-1], texts)
        for sample, rows in zip(batch, scored, strict=True):
            sample.texts = rows


def _empty_cache() -> None:
    import torch

    torch.cuda.empty_cache()


def _web_rows(facts: SampleRow) -> list[TextRow]:
    if facts["web_text"] is None:
        return []
    return [{"text_no": 0, "origin": "web", "text": facts["web_text"]}]
