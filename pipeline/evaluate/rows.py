"""Rows of the field's annotation files with their pictures, a batch at a time."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from threading import Lock

import torch
from torch import Tensor

from models.blip.preprocess import Preprocess
from pipeline.evaluate.pairs import LabelledPair
from pipeline.media.pictures import resized
from shards.reasons import SampleReason, TextReason
from shards.training.annotation import WRONG_TYPE, Fields, fold_spaces
from shards.training.annotation_file import read_picture, unusable

_KEPT = 64  # pictures: rows about one picture often stand together

Loaded = tuple[Tensor, ...]  # a row's pictures, uint8 (3, H, W) each


class AnnotatedPictures:
    """Pictures below a folder, decoded and resized; one that cannot be used is its reason.

    Several threads may load; a picture that two of them ask for is read once.
    """

    def __init__(self, folder: str, preprocess: Preprocess) -> None:
        self._folder, self._preprocess = folder, preprocess
        self._kept: OrderedDict[str, Future[Tensor | str]] = OrderedDict()
        self._lock = Lock()

    def load(self, names: Sequence[object]) -> Loaded | str:
        """Return all of a row's pictures, or the reason why one cannot be used."""
        pictures: list[Tensor] = []
        reasons: list[str] = []
        for name in names:
            picture = unusable(name) or self._load(str(name))  # a name that is no text is refused
            if isinstance(picture, Tensor):
                pictures.append(picture)
            else:
                reasons.append(picture)
        return reasons[0] if reasons else tuple(pictures)

    def _load(self, name: str) -> Tensor | str:
        """Read a picture, or wait for the thread that reads it already."""
        with self._lock:  # held for the look-up alone: who is first reads without it
            loading = self._kept.get(name)
            if is_first := loading is None:
                loading = self._kept[name] = Future()
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        if is_first:
            try:
                loading.set_result(self._read(name))
            except BaseException as error:  # it is raised where the picture is waited for
                loading.set_exception(error)
        return loading.result()

    def _read(self, name: str) -> Tensor | str:
        data = read_picture(self._folder, name)
        return resized(data, self._preprocess) if data else SampleReason.IMAGE_MISSING


def stacked(loaded: Sequence[Loaded]) -> Loaded:
    """Stack the pictures of rows, each place's as (B, 3, H, W)."""
    return tuple(torch.stack(column) for column in zip(*loaded, strict=True))


def each_once(loaded: Sequence[Loaded]) -> tuple[Tensor, list[int]]:
    """Stack the pictures of rows with one each, (B, 3, H, W), and say which is whose.

    Rows about one picture share it, as `AnnotatedPictures` gives it: a model need look only once.
    """
    numbers: dict[int, int] = {}
    distinct: list[Tensor] = []
    about = []
    for (picture,) in loaded:
        if id(picture) not in numbers:
            numbers[id(picture)] = len(distinct)
            distinct.append(picture)
        about.append(numbers[id(picture)])
    return torch.stack(distinct), about


def captioned(rows: Iterable[Fields], images: str) -> Iterator[LabelledPair]:
    """Turn rows of Karpathy's split, or of nocaps, which has no captions, into labelled pairs."""
    for row in rows:
        name, reason = row.get("image"), unusable(row.get("image"))
        listed = row.get("caption", [])
        texts = [fold_spaces(item) for item in (listed if isinstance(listed, list) else [listed])]
        if reason is None and None in texts:
            reason = WRONG_TYPE
        captions = tuple(text for text in texts if text)
        if reason is None and "caption" in row and not captions:
            reason = TextReason.EMPTY
        image = b"" if reason is not None else read_picture(images, str(name))
        if reason is None and not image:
            reason = SampleReason.IMAGE_MISSING
        yield LabelledPair(str(name), image, captions, row, reason)
