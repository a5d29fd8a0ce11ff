"""Rows of the field's annotation files with their pictures, a batch at a time."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from threading import Lock

import torch
from torch import Tensor

from models.blip.preprocess import Preprocess
from pipeline.evaluate.pairs import LabelledPair
from pipeline.media.pictures import extension, resized
from shards.inputs.names import FOREIGN_EXTENSIONS
from shards.reasons import SampleReason, TextReason
from shards.training.annotation import Fields, read_texts
from shards.training.left_out import Unusable, excerpt
from shards.training.picture_folder import FolderPicture, PictureFolder, picture_folder
from shards.training.picture_name import NamesTogether, PictureName, is_name

_KEPT = 64  # pictures: rows about one picture often stand together

_NO_NAME = Unusable(SampleReason.IMAGE_MISSING, "a row that names no picture")

Loaded = tuple[Tensor, ...]  # a row's pictures, uint8 (3, H, W) each


class AnnotatedPictures:
    """Pictures below a folder, decoded and resized; one that cannot be used is its reason.

    Several threads may load; a picture that two of them ask for is read once.
    """

    def __init__(
        self, folder: str, preprocess: Preprocess, names: NamesTogether | None = None
    ) -> None:
        self._names = names
        self._folder, self._preprocess = picture_folder(folder), preprocess
        self._kept: OrderedDict[PictureName, Future[Tensor | str]] = OrderedDict()
        self._lock = Lock()

    def load(self, names: Sequence[object]) -> Loaded | str:
        """Return all of a row's pictures, or the reason why one cannot be used."""
        pictures: list[Tensor] = []
        reasons: list[str] = []
        for name in names:
            picture: Tensor | str = _NO_NAME
            if is_name(name):
                picture = self._load(name)
            if isinstance(picture, Tensor):
                pictures.append(picture)
            else:
                reasons.append(picture)
        return reasons[0] if reasons else tuple(pictures)

    def _load(self, name: PictureName) -> Tensor | str:
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

    def _read(self, name: PictureName) -> Tensor | str:
        picture = read_picture(self._folder, name, self._names)
        if isinstance(picture, str):
            return picture
        loaded = resized(picture.data, self._preprocess)
        return Unusable(loaded, picture.path) if isinstance(loaded, str) else loaded


def read_picture(
    folder: PictureFolder, name: object, among: NamesTogether | None = None
) -> FolderPicture | Unusable:
    """Read a picture that a row names; endings of formats that are not read are refused."""
    picture = folder.read(name, among)
    if isinstance(picture, FolderPicture) and extension(picture.path) in FOREIGN_EXTENSIONS:
        return Unusable(SampleReason.FORMAT_NOT_ALLOWED, picture.path)
    return picture


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


def captioned(
    rows: Iterable[Fields], images: str, names: NamesTogether | None = None
) -> Iterator[LabelledPair]:
    """Turn rows of Karpathy's split, or of nocaps, which has no captions, into labelled pairs."""
    folder = picture_folder(images)
    for number, row in enumerate(rows, 1):
        name = row.get("image")
        texts = read_texts(row["caption"]) if "caption" in row else []
        if isinstance(texts, str) or ("caption" in row and not any(texts)):
            reason = texts if isinstance(texts, str) else TextReason.EMPTY
            example = f"row {number:,}: {excerpt(row)}"
            yield LabelledPair(str(name), b"", (), row, Unusable(reason, example))
            continue
        picture = read_picture(folder, name, names)
        captions = tuple(text for text in texts if text)
        if isinstance(picture, Unusable):
            yield LabelledPair(str(name), b"", captions, row, picture)
        else:
            yield LabelledPair(str(name), picture.data, captions, row)
