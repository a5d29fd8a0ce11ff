"""Sources of training samples: a cleaned run under one view, or what people annotated as it is.

A cleaned run gives its kept samples, each with all its kept texts, out of the clean tars, or else
straight from the input tars through the decisions. Human-annotated tars, and the field's annotation
files, pass unfiltered. What cannot be used is counted by reason when the source is opened; from
then on it is the same source, or an error that says what changed.
"""

from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from shards.errors import UsageError
from shards.inputs.listing import DIVIDED_OTHERWISE
from shards.inputs.reader import RawSample
from shards.inputs.shard import InputChanged, InputShard
from shards.inputs.text import TXT, TextSource
from shards.store import filesystem
from shards.training.annotation import SourceText
from shards.training.annotation_file import Kind


class SourceError(UsageError):
    """A source that cannot be opened as it was asked for."""


class SourceConfig(BaseModel):
    """Where training samples come from: a `run`, human-annotated `shards`, or `annotations`.

    `repeat` is how many times an epoch goes through the source, and may be a fraction (the BLIP
    paper sees a fifth of LAION in an epoch). `read` says where a run's samples come from: its clean
    tars, its input tars, or (auto) the clean ones where there are any. `text` says where the texts
    of `shards` stand: `txt`, `json:FIELD`, or another extension. `annotations` is one of the
    field's JSON files, and `images` the folder of its pictures (default: the file's own). `split`
    is one of the splits in Karpathy's raw files, or several (`train+restval`), and `answers` the
    second file of VQA's raw questions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str | None = None
    view: str | None = None
    snapshot: str | None = None
    shards: tuple[str, ...] | None = None
    root: str | None = None
    text: str = "txt"
    annotations: str | None = None
    images: str | None = None
    split: str | None = None
    answers: str | None = None
    repeat: FiniteFloat = Field(default=1.0, gt=0)
    read: Literal["auto", "clean", "input"] = "auto"

    @model_validator(mode="after")
    def _check_kind(self) -> "SourceConfig":
        kinds = [name for name in _KEYS if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError("a source is a run, shards or annotations; give one of the three")
        TextSource.parse(self.text)
        fields = type(self).model_fields
        for kind, names in _KEYS.items():
            wrong = [name for name in names if getattr(self, name) != fields[name].default]
            if wrong and kind not in kinds:
                raise ValueError(f"{', '.join(wrong)} is for {kind} only; leave it out")
        return self


_KEYS = {
    "run": ("view", "snapshot", "read"),
    "shards": ("root", "text"),
    "annotations": ("images", "split", "answers"),
}


@dataclass(frozen=True, slots=True)
class CleanedTables:
    """URLs of the tables through which an input tar is read."""

    samples: str
    texts: str
    decisions: str


@dataclass(frozen=True, slots=True)
class AnnotatedRows:
    """Where the pictures of an annotation file lie, and a part's first row in it.

    `split` and `answers` say how the file is read.
    """

    images: str
    first: int
    split: str | None = None
    answers: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One shard of a source, and how many samples it gives; with `tables` it is an input shard.

    With `listed` it is some rows of an annotation file. `sha256` is the file's, where it is known;
    `is_clean` says that a run wrote it; `text` is where an input tar has its texts, and `input` the
    shard as it was listed.
    """

    shard: str
    url: str
    rows: int
    sha256: str | None = None
    is_clean: bool = False
    tables: CleanedTables | None = None
    listed: AnnotatedRows | None = None
    text: TextSource = TXT
    input: InputShard | None = None

    @property
    def source(self) -> InputShard:
        """What is opened for its samples."""
        return self.input or InputShard(self.url, self.shard, 0)


@dataclass(frozen=True, slots=True)
class Source:
    """An opened source: `name` changes if the samples do, wherever they lie.

    The samples that came in are `rows` and those of `left_out`, by reason. `damaged` tells how the
    shards ended that were not complete.
    """

    name: str
    parts: tuple[Part, ...]
    repeat: float
    left_out: dict[str, int]
    damaged: dict[str, str]
    kind: Kind = "captions"

    @property
    def rows(self) -> int:
        """Samples in one pass."""
        return sum(part.rows for part in self.parts)


@dataclass(frozen=True, slots=True)
class PictureLocation:
    """Where a picture's bytes lie: in a file of its own, or inside a tar."""

    url: str
    offset: int
    size_bytes: int


def location_of(url: str, raw: RawSample) -> PictureLocation | None:
    """Return where a sample's image lies; None where no stretch of a file holds its bytes."""
    if raw.image is None or raw.image_offset is None:
        return None
    return PictureLocation(raw.image_url or url, raw.image_offset, len(raw.image))


def read_picture_at(location: PictureLocation) -> bytes:
    """Read a picture's bytes where they lie; empty where the file is gone or too short.

    Whether they are still the same picture only who decodes them can say.
    """
    fs, path = filesystem(location.url)
    try:
        data: bytes = fs.cat_file(
            path, start=location.offset, end=location.offset + location.size_bytes
        )
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return b""
    return data if len(data) == location.size_bytes else b""


@dataclass(frozen=True, slots=True)
class SourceSample:
    """One image and the texts to choose from; `key` is SHARD/KEY.

    A statement has a picture on the `right` too. An annotated picture that is missing is empty.
    """

    key: str
    image: bytes
    texts: tuple[SourceText, ...]
    right: bytes | None = None
    # the same sample may lie elsewhere
    location: PictureLocation | None = field(default=None, compare=False)


def changed(part: Part, expected: str, found: str) -> InputChanged:
    """Make the error that a part is not what it was when its source was opened."""
    return InputChanged(
        f"{part.url} (shard {part.shard!r}) changed since it was opened or cleaned: expected "
        f"{expected}, found {found}; restore it, or begin a new training with what is there now"
        + f". {DIVIDED_OTHERWISE}"
        * (part.tables is not None)
    )
