"""Rows of the field's annotation files with their pictures, a batch at a time."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from models.preprocess import Preprocess
from pipeline.decode import Refusal, decode
from pipeline.evaluate.pairs import LabelledPair
from pipeline.pictures import LIMITS
from shards.annotation import WRONG_TYPE, Fields, squeeze
from shards.annotation_file import read_picture, unusable
from shards.schema import SampleReason, TextReason

_KEPT = 64  # pictures: rows about one picture often stand together

Loaded = tuple[Tensor, ...]  # a row's pictures, uint8 (3, H, W) each


class Pictures:
    """Pictures below a folder, decoded and resized; one that cannot be used is its reason."""

    def __init__(self, folder: str, preprocess: Preprocess) -> None:
        self._folder, self._preprocess = folder, preprocess
        self._kept: OrderedDict[str, Tensor | str] = OrderedDict()

    def load(self, names: Sequence[object]) -> Loaded | str:
        """Give all of a row's pictures, or the reason why one cannot be used."""
        loaded = [self._one(name) for name in names]
        reasons = [one for one in loaded if isinstance(one, str)]
        return reasons[0] if reasons else tuple(one for one in loaded if isinstance(one, Tensor))

    def _one(self, name: object) -> Tensor | str:
        reason = unusable(name)
        if reason is not None:
            return reason
        assert isinstance(name, str)
        if name not in self._kept:
            self._kept[name] = self._read(name)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return self._kept[name]

    def _read(self, name: str) -> Tensor | str:
        data = read_picture(self._folder, name)
        if not data:
            return SampleReason.IMAGE_MISSING
        found = decode(data, LIMITS)
        return found.reason if isinstance(found, Refusal) else self._preprocess.resize(found.image)


def batches(
    rows: Iterable[Fields],
    load: Callable[[Fields], Loaded | str],
    size: int,
    left_out: Counter[str],
) -> Iterator[tuple[list[Fields], Loaded]]:
    """Load the pictures of `size` rows at a time, each place's as (B, 3, H, W); count the rest."""
    taken: list[Fields] = []
    loaded: list[Loaded] = []
    for row in rows:
        found = load(row)
        if isinstance(found, str):
            left_out[found] += 1
            continue
        taken.append(row)
        loaded.append(found)
        if len(taken) == size:
            yield taken, _stacked(loaded)
            taken, loaded = [], []
    if taken:
        yield taken, _stacked(loaded)


def captioned(rows: Iterable[Fields], images: str) -> Iterator[LabelledPair]:
    """Turn rows of Karpathy's split, or of nocaps, which has no captions, into labelled pairs."""
    for row in rows:
        name, reason = row.get("image"), unusable(row.get("image"))
        given = row.get("caption", [])
        texts = [squeeze(item) for item in (given if isinstance(given, list) else [given])]
        if reason is None and None in texts:
            reason = WRONG_TYPE
        found = tuple(text for text in texts if text)
        if reason is None and "caption" in row and not found:
            reason = TextReason.EMPTY
        image = b"" if reason is not None else read_picture(images, str(name))
        if reason is None and not image:
            reason = SampleReason.IMAGE_MISSING
        yield LabelledPair(str(name), image, found, row, reason)


def _stacked(loaded: Sequence[Loaded]) -> Loaded:
    return tuple(torch.stack(place) for place in zip(*loaded, strict=True))
