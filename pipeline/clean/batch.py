"""Run the models over batches: each picture is decoded once, and seen once by each model."""

from pipeline.clean.caption import Captioner, caption
from pipeline.clean.export import WriteConfig, encode_jpeg
from pipeline.clean.prepare import PreparedSample
from pipeline.clean.score import Scorer, score
from pipeline.clean.screen import Decode, ScreenConfig, screen
from shards.inputs.reader import RawSample
from shards.schema import SampleRow, TextRow


class BatchModels:
    """A captioner and a scorer, with what they need of a sample and what they say of it.

    `candidates` captions are written for each picture. `splits` counts the batches that the GPU
    could not hold.
    """

    def __init__(
        self,
        captioner: Captioner,
        scorer: Scorer,
        screening: ScreenConfig,
        writing: WriteConfig,
        candidates: int,
    ) -> None:
        self.splits = 0
        self._captioner, self._scorer = captioner, scorer
        self._screening, self._writing, self._candidates = screening, writing, candidates

    def prepare(self, raw: RawSample, decode: Decode) -> PreparedSample:
        """Decode a sample once, for both models and for the clean shard; several threads may."""
        screened = screen(raw, self._screening, decode, self._scorer.count_tokens)
        if screened.image is None:
            return PreparedSample(screened)
        picture, write = screened.image, self._writing
        first = self._captioner.preprocess.resize(picture)
        same = self._captioner.preprocess == self._scorer.preprocess
        second = first if same else self._scorer.preprocess.resize(picture)
        image = b""
        if write.clean == "tar":
            image = encode_jpeg(picture) if write.images == "jpeg" else screened.original
        screened.image, screened.original = None, b""
        return PreparedSample(screened, (first, second), image)

    def fill_in(self, shard: str, batch: list[PreparedSample]) -> None:
        """Fill in the texts of pictures; a batch that the GPU cannot hold is done in halves."""
        if not batch:
            return
        import torch

        try:
            self._fill_in(shard, batch)
        except torch.OutOfMemoryError:
            half = len(batch) // 2
            if not half:
                raise
            self.splits += 1
            torch.cuda.empty_cache()
            self.fill_in(shard, batch[:half])
            self.fill_in(shard, batch[half:])

    def _fill_in(self, shard: str, batch: list[PreparedSample]) -> None:
        """Fill in the texts of pictures: the web's, the captioner's, all with their scores."""
        import torch

        keys = [f"{shard}/{sample.screened.facts['key']}" for sample in batch]
        images = torch.stack([sample.views[0] for sample in batch])
        written = caption(self._captioner, images, keys, self._candidates)
        texts = [
            [*_web_rows(sample.screened.facts), *rows]
            for sample, rows in zip(batch, written, strict=True)
        ]
        scored = score(self._scorer, torch.stack([sample.views[1] for sample in batch]), texts)
        for sample, rows in zip(batch, scored, strict=True):
            sample.texts, sample.views = rows, ()


def _web_rows(facts: SampleRow) -> list[TextRow]:
    if facts["web_text"] is None:
        return []
    return [{"text_no": 0, "origin": "web", "text": facts["web_text"]}]
