"""The field's files about videos: MSRVTT's captions, and the questions of MSRVTT-QA and MSVD-QA.

Videos lie in one folder, named by `clip_name` or `video_id` and an extension. MSRVTT-QA and MSVD-QA
name them by a number: 7010 is video7010 or vid7010. A row that cannot be used is counted by its
reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from shards.reasons import SampleReason, TextReason
from shards.store import filesystem, url_of
from shards.training.annotation import (
    MISSING_COLUMN,
    NULL_VALUE,
    WRONG_TYPE,
    Fields,
    fold_spaces,
    read_texts,
    spell_answers,
    usable_rows,
)
from shards.training.json_file import AnnotationError, read_json
from shards.training.left_out import LeftOut
from shards.training.picture_name import unusable

EXTENSIONS = ("mp4", "avi", "webm", "mkv", "mov")  # the first that is there is taken
NO_VIDEO = "video_missing"
_ENDINGS = tuple(f".{extension}" for extension in EXTENSIONS)

Kind = Literal["captions", "questions"]


@dataclass(frozen=True, slots=True)
class Clip:
    """What is said about a video: a caption, or a question and its answer."""

    video: str
    text: str
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Clips:
    """The usable rows of a file, all of one kind."""

    kind: Kind
    rows: tuple[Clip, ...]
    left_out: LeftOut


def read_clips(url: str) -> Clips:
    """Read a file: JSON lines of clip_name and caption, or a list of video_id, question, answer.

    AnnotationError where it is neither.
    """
    parsed = read_json(url)
    listed = parsed if isinstance(parsed, list) else [parsed]
    fields = next((row for row in listed if isinstance(row, dict)), {})
    kind: Kind = "questions" if "question" in fields else "captions"
    names = _NAMES[kind]
    if not any(isinstance(row, dict) and all(name in row for name in names) for row in listed):
        raise AnnotationError(
            f"{url}: expected lines of {', '.join(_NAMES['captions'])}, or a list of "
            f"{', '.join(_NAMES['questions'])}; the first row has {sorted(fields) or 'no fields'}"
        )
    left_out = LeftOut()
    rows = tuple(usable_rows(listed, partial(_clip, names), left_out))
    return Clips(kind, rows, left_out)


def video_location(videos: str, name: str) -> str | None:
    """Find a video below a folder, by its name or number; None if there is none."""
    fs, root = filesystem(videos)
    names = [name, f"video{name}", f"vid{name}"] if name.isdigit() else [name]
    bases = [f"{root.rstrip('/')}/{one}" for one in names]
    places = [f"{base}{ending}" for base in bases for ending in ("", *_ENDINGS)]
    return next((url_of(fs, place) for place in places if fs.isfile(place)), None)


def _clip(names: Sequence[str], row: Fields) -> Clip | str:
    if not all(name in row for name in names):
        return MISSING_COLUMN
    video, *given = (row[name] for name in names)
    texts = read_texts([given[0], *spell_answers(given[1:])]) if None not in given else NULL_VALUE
    name = str(video) if type(video) is int else fold_spaces(video)  # true is an int, too
    if isinstance(texts, str):
        return texts
    if name is None:
        return WRONG_TYPE
    if not name:
        return NO_VIDEO
    if reason := unusable(name) or (name.startswith("/") and SampleReason.UNSAFE_MEMBER):
        return reason
    return Clip(name, *texts) if all(texts) else TextReason.EMPTY


_NAMES: dict[Kind, tuple[str, ...]] = {
    "captions": ("clip_name", "caption"),
    "questions": ("video_id", "question", "answer"),
}
