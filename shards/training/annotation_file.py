"""Annotation files of the field: JSON lists of rows about pictures that lie in a folder.

Four kinds are read, as the field's loaders do: captions (COCO's and Flickr30k's of Karpathy's
split), questions with answers (VQA, Visual Genome), statements about two pictures (NLVR2), and
dialogues (VisDial, whose file is no list). A row that cannot be used is counted by its reason. A
file is held in memory, its pictures are not.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import UnsupportedOperation
from pathlib import PurePosixPath
from typing import Any, Literal

from shards.errors import UsageError
from shards.reasons import SampleReason, TextReason
from shards.store import filesystem
from shards.training.annotation import (
    HUMAN,
    MISSING_COLUMN,
    WRONG_TYPE,
    Fields,
    SourceText,
    WeightedAnswer,
    fold_spaces,
    usable_rows,
)
from shards.training.dialogue_file import DialogueRow, dialogues, is_dialogues

Kind = Literal["captions", "questions", "statements", "dialogues"]
"""What a source's texts are: they say what a picture shows, ask about it (alone, or after other
questions), or claim something of two."""

MAX_FILE_BYTES = 2 << 30
MAX_PICTURE_BYTES = 256 << 20
VISUAL_GENOME_WEIGHT = 0.2  # of its one answer, as in BLIP's training


class AnnotationError(UsageError):
    """A file that is no list of annotations."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One row: the names of its pictures below the images' folder, and what is said of them.

    A dialogue's picture is named by its number (see `pictures_by_number`).
    """

    pictures: tuple[str, ...]
    texts: tuple[SourceText, ...]


@dataclass(frozen=True, slots=True)
class Annotations:
    """The usable rows of a file, all of one kind, and its content's hash."""

    kind: Kind
    rows: tuple[Annotation, ...]
    left_out: dict[str, int]
    sha256: str


def read_annotations(url: str) -> Annotations:
    """Read a file, local or of any fsspec store; AnnotationError where it is no list of rows."""
    fs, path = filesystem(url)
    try:
        return _read(url, fs.ukey(path))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise AnnotationError(f"{url} is no file") from error


@lru_cache(maxsize=4)  # the lanes of a training read the same file by turns
def _read(url: str, _version: str) -> Annotations:
    data = _file(url)
    listed = parse_json(url, data)
    left_out: Counter[str] = Counter()
    kind: Kind = "dialogues"
    if is_dialogues(listed):
        rows = tuple(_questions_of(listed, left_out))
    elif isinstance(listed, list):
        kind = _kind(listed, url)
        rows = tuple(usable_rows(listed, _READERS[kind], left_out))
    else:
        raise AnnotationError(f"{url}: expected a JSON list of rows, found {type(listed).__name__}")
    return Annotations(kind, rows, dict(left_out), hashlib.sha256(data).hexdigest())


def read_rows(url: str, fields: Sequence[str]) -> list[Fields]:
    """Read a file's rows as they are, for evaluation; what is no object is an empty row.

    AnnotationError where it is no list, or no row has the fields.
    """
    listed = read_json(url)
    given = listed if isinstance(listed, list) else []
    rows: list[Fields] = [row if isinstance(row, dict) else {} for row in given]
    if not any(all(name in row for name in fields) for row in rows):
        found = f"a list of {len(rows)}" if isinstance(listed, list) else type(listed).__name__
        keys = f", the first with {sorted(rows[0])}" if rows else ""
        raise AnnotationError(
            f"{url}: expected a JSON list of rows with {', '.join(fields)}, found {found}{keys}"
        )
    return rows


def read_dialogues(url: str) -> tuple[list[DialogueRow], dict[str, int]]:
    """Read VisDial's file, and count by reason what cannot be used; AnnotationError if it is not.

    Candidates come along, and without them the rounds of the test split.
    """
    parsed, left_out = read_json(url), Counter[str]()
    if not is_dialogues(parsed):
        raise AnnotationError(
            f"{url}: expected an object with data: questions, answers, dialogs, as VisDial 1.0's "
            f"files are; found {type(parsed).__name__}"
        )
    return list(dialogues(parsed, left_out)), dict(left_out)


def read_picture(images: str, name: str) -> bytes:
    """Read a picture below the images' folder; empty where there is none, or a far too large one.

    An object store may answer in ways of its own for what is not there; a lost connection raises.
    """
    fs, root = filesystem(images)
    path = f"{root.rstrip('/')}/{name}"
    try:
        if fs.size(path) > MAX_PICTURE_BYTES:
            return b""
        data: bytes = fs.cat_file(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return b""
    return data


def read_answers(url: str) -> list[str]:
    """Read a JSON list of answers, such as VQA's answer_list.json; blank and repeated ones go."""
    listed = read_json(url)
    texts = [fold_spaces(item) for item in listed] if isinstance(listed, list) else []
    answers = list(dict.fromkeys(text for text in texts if text))
    if not answers:
        raise AnnotationError(f"{url}: expected a JSON list of answers, found none in it")
    return answers


def read_json(url: str) -> Any:  # noqa: ANN401 - any JSON value
    """Read a JSON file of any fsspec store; AnnotationError says what is wrong with it."""
    return parse_json(url, _file(url))


def read_text(url: str) -> str:
    """Read a file as UTF-8; AnnotationError says what is wrong with it."""
    try:
        return _file(url).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{url} is not UTF-8: {error}") from None


def _file(url: str) -> bytes:
    fs, path = filesystem(url)
    try:
        size = fs.size(path)
        if size > MAX_FILE_BYTES:
            raise AnnotationError(f"{url} has {size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
        data: bytes = fs.cat_file(path)
    except (FileNotFoundError, IsADirectoryError, UnsupportedOperation) as error:  # a pipe, too
        raise AnnotationError(f"{url} is no file") from error
    return data


def parse_json(url: str, data: bytes | str) -> Any:  # noqa: ANN401 - any JSON value
    """Parse a file's content; AnnotationError names the file."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{url} cannot be read as JSON: {error}") from None


def _kind(listed: list[Any], url: str) -> Kind:
    """Tell the kind by the first row that has the fields of one."""
    for row in listed:
        fields = row if isinstance(row, dict) else {}
        for kind, names in _FIELDS.items():
            if all(name in fields for name in names):
                return kind
    wanted = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in _FIELDS.items())
    found = sorted(listed[0]) if listed and isinstance(listed[0], dict) else "no objects"
    raise AnnotationError(
        f"{url}: no row has the fields of a known kind ({wanted}); the first has {found}"
    )


def _questions_of(parsed: Fields, left_out: Counter[str]) -> Iterator[Annotation]:
    """Make a row of each answered question of a file's dialogues."""
    for dialogue in dialogues(parsed, left_out):
        before: tuple[tuple[str, str], ...] = ()
        for turn in dialogue.rounds:
            answers = (WeightedAnswer(turn.answer, 1.0),)
            asked = (dialogue.caption, before, turn.options)
            text = SourceText(turn.question, HUMAN, answers, None, *asked)
            before = (*before, (turn.question, turn.answer))
            if turn.answer:
                yield Annotation((str(dialogue.image_id),), (text,))
            else:
                left_out[TextReason.EMPTY] += 1


def _captions(fields: Fields) -> Annotation | str:
    if "caption" not in fields:
        return MISSING_COLUMN
    given = fields["caption"]
    listed = given if isinstance(given, list) else [given]
    texts = [fold_spaces(item) for item in listed]
    if None in texts:
        return WRONG_TYPE
    found = tuple(SourceText(text, HUMAN) for text in texts if text)
    return _row([fields.get("image")], found) if found else TextReason.EMPTY


def _question(fields: Fields) -> Annotation | str:
    if "question" not in fields or "answer" not in fields:
        return MISSING_COLUMN
    question, given = fold_spaces(fields["question"]), fields["answer"]
    listed = [fold_spaces(item) for item in (given if isinstance(given, list) else [given])]
    if question is None or None in listed:
        return WRONG_TYPE
    answers = weigh_answers(listed, fields.get("dataset") == "vg")
    if not question or not answers:
        return TextReason.EMPTY
    return _row([fields.get("image")], (SourceText(question, HUMAN, answers),))


def weigh_answers(
    answers: list[str | None], is_visual_genome: bool = False
) -> tuple[WeightedAnswer, ...]:
    """Weigh each answer by its share of the annotators, blank ones too; the blank ones then go."""
    counts = Counter(answers)
    return tuple(
        WeightedAnswer(text, VISUAL_GENOME_WEIGHT if is_visual_genome else count / len(answers))
        for text, count in counts.items()
        if text
    )


def _statement(fields: Fields) -> Annotation | str:
    if not all(name in fields for name in ("images", "sentence", "label")):
        return MISSING_COLUMN
    text, label = fold_spaces(fields["sentence"]), LABELS.get(str(fields["label"]))
    pictures = fields["images"]
    if text is None or label is None or not isinstance(pictures, list) or len(pictures) != 2:
        return WRONG_TYPE
    return _row(pictures, (SourceText(text, HUMAN, label=label),)) if text else TextReason.EMPTY


def _row(pictures: list[Any], texts: tuple[SourceText, ...]) -> Annotation | str:
    """Make a row, unless a picture's name leads out of the images' folder."""
    reasons = [reason for name in pictures if (reason := unusable(name)) is not None]
    names = tuple(str(PurePosixPath(name)) for name in pictures if isinstance(name, str))
    return reasons[0] if reasons else Annotation(names, texts)


def unusable(name: Any) -> str | None:  # noqa: ANN401 - any JSON value
    """Return why something names no picture below a folder; None if it does."""
    if not isinstance(name, str) or not name:
        return SampleReason.IMAGE_MISSING
    path = PurePosixPath(name)
    leads_out = path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name
    return SampleReason.UNSAFE_MEMBER if leads_out else None


LABELS = {"True": True, "False": False}
_FIELDS: dict[Kind, tuple[str, ...]] = {
    "captions": ("image", "caption"),
    "questions": ("image", "question", "answer"),
    "statements": ("images", "sentence", "label"),
}
_READERS: dict[Kind, Callable[[Fields], Annotation | str]] = {
    "captions": _captions,
    "questions": _question,
    "statements": _statement,
}
