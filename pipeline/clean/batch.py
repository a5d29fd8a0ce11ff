"""Run the models over batches: each picture is decoded once, and seen once by each model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from models.captioners.captioner import Captioner, PixelCaptioner, Refusal
from models.guests.picture import TakesPixels
from models.scorers.scorer import PixelScorer, Scorer
from pipeline.clean.caption import NamedCaptioner, caption, imported, refused
from pipeline.clean.export import WriteConfig, encode_jpeg
from pipeline.clean.lists import BlockList
from pipeline.clean.prepare import PreparedSample
from pipeline.clean.score import NamedScorer, score
from pipeline.clean.screen import NOTHING, CountTokens, Decode, ScreenConfig, screen
from pipeline.media.pixels import pixels_of
from shards.inputs.candidates import Candidates
from shards.inputs.reader import RawSample
from shards.schema import SampleRow, ScoreRow, TextRow

if TYPE_CHECKING:
    from torch import Tensor

    from models.blip.preprocess import Preprocess

    Guest = Captioner | Scorer
    Model = Guest | PixelCaptioner | PixelScorer


class Ways:
    """How pictures are made ready for several models: once for all that take them alike."""

    def __init__(self, models: "Sequence[Model]") -> None:
        self.sizes: list[Preprocess] = []
        self._guests: dict[str, Guest] = {}
        for model in models:
            if not isinstance(model, TakesPixels):
                self._guests.setdefault(model.prepare_key, model)
            elif model.preprocess not in self.sizes:
                self.sizes.append(model.preprocess)

    @property
    def largest_side(self) -> int | None:
        """How large pictures are wanted at most; None for as large as they are."""
        return None if self._guests else max(max(way.width, way.height) for way in self.sizes)

    def prepare(self, sample: PreparedSample, picture: Any) -> None:  # noqa: ANN401 - of Pillow
        """Make a picture ready in each way."""
        sample.views = tuple(way.resize(picture, pixels_of) for way in self.sizes)
        sample.prepared = tuple(guest.prepare(picture) for guest in self._guests.values())

    def pictures(
        self, model: "Model", batch: Sequence[PreparedSample], views: "Sequence[Tensor]"
    ) -> Any:  # noqa: ANN401 - a tensor, or a list of what the guest prepared
        """Give the pictures of a batch as a model takes them."""
        if isinstance(model, TakesPixels):
            return views[self.sizes.index(model.preprocess)]
        place = list(self._guests).index(model.prepare_key)
        return [sample.prepared[place] for sample in batch]


class BatchModels:
    """Captioners and scorers, with what they need of a sample and what they say of it."""

    def __init__(
        self,
        captioners: Sequence[NamedCaptioner],
        scorers: Sequence[NamedScorer],
        screening: ScreenConfig,
        writing: WriteConfig,
        candidates: Candidates | None = None,
        blocked: BlockList = NOTHING,
    ) -> None:
        self._candidates, self._blocked = candidates, blocked
        self._captioners, self._scorers = captioners, scorers
        self._screening, self._writing = screening, writing
        self._ways = Ways([*(each.captioner for each in captioners), *(s.scorer for s in scorers)])
        self._count_tokens = _token_counter(scorers)

    def prepare(self, raw: RawSample, decode: Decode) -> PreparedSample:
        """Decode a sample once, for all models and for the clean shard; several threads may."""
        write = self._writing
        side = None
        if write.clean == "none" or write.images == "original":  # nobody wants it as large as it is
            side = self._ways.largest_side
        screened = screen(raw, self._screening, decode, self._count_tokens, side, self._blocked)
        sample = PreparedSample(screened)
        if screened.image is None:
            return sample
        self._ways.prepare(sample, screened.image)
        if write.clean == "tar":
            as_jpeg = write.images == "jpeg"
            sample.image = encode_jpeg(screened.image) if as_jpeg else screened.original
        screened.image, screened.original = None, b""
        return sample

    def fill_in(
        self, shard: str, batch: Sequence[PreparedSample], views: "Sequence[Tensor]"
    ) -> int:
        """Fill in the texts of pictures; give the number of batches that the GPU could not hold.

        Such a batch is done in halves. `views`: uint8 (B, 3, H, W), in each size that is wanted.
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
        """Fill in the texts of pictures: the web's, the captioners', all with their scores."""
        texts = self._texts(shard, batch, views)
        scores: list[list[ScoreRow]] = [[] for _ in batch]
        for named in self._scorers:
            pictures = self._ways.pictures(named.scorer, batch, views)
            for place, (rows, others) in enumerate(score(named, pictures, texts)):
                texts[place] = rows
                scores[place] += others
        for sample, rows, others in zip(batch, texts, scores, strict=True):
            sample.texts, sample.scores = rows, sorted(others, key=_in_order)

    def _texts(
        self, shard: str, batch: Sequence[PreparedSample], views: "Sequence[Tensor]"
    ) -> list[list[TextRow]]:
        """Have all texts of each picture; their numbers run on from captioner to captioner.

        Candidates from outside come last.
        """
        texts = [_web_rows(sample.screened.facts) for sample in batch]
        keys = [f"{shard}/{sample.screened.facts['key']}" for sample in batch]
        next_no = 1
        for named in self._captioners:
            pictures = self._ways.pictures(named.captioner, batch, views)
            written = caption(named, pictures, keys, next_no)
            for sample, rows, new in zip(batch, texts, written, strict=True):
                if isinstance(new, Refusal):
                    rows += refused(named, next_no, new, sample.screened.facts)
                else:
                    rows += new
            next_no += named.count
        if self._candidates is not None:
            for sample, rows in zip(batch, texts, strict=True):
                found = self._candidates.of(shard, str(sample.screened.facts["key"]))
                rows += imported(found, next_no)
        return texts


def _token_counter(scorers: Sequence[NamedScorer]) -> CountTokens | None:
    """Find who counts tokens: a text without one would be scored as if nothing stood there."""
    counters = (getattr(named.scorer, "count_tokens", None) for named in scorers)
    return next((count for count in counters if count is not None), None)


def _in_order(row: ScoreRow) -> tuple[int, str, str]:
    return row["text_no"], row["scorer"], row["name"]


def _empty_cache() -> None:
    import torch

    torch.cuda.empty_cache()


def _web_rows(facts: SampleRow) -> list[TextRow]:
    text = facts["web_text"]
    if text is None or facts["text_reason"] is not None:
        return []
    return [{"text_no": 0, "origin": "web", "text": text}]
