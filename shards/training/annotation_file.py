"""Annotation files of the field: rows about pictures that lie in a folder.

Four kinds are read: captions (as of COCO and Flickr30k), questions with answers (VQA, Visual
Genome), statements about two pictures (NLVR2), and dialogues (VisDial, whose file is no list); in
the form of the field's loaders, or as the data sets publish them (`raw_file`). A row that cannot be
used is counted by its reason. A file is held in memory, its pictures are not.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from shards.reasons import TextReason
from shards.store import filesystem
from shards.training.annotation import (
    HUMAN,
    MISSING_COLUMN,
    NULL_VALUE,
    WRONG_TYPE,
    Fields,
    SourceText,
    WeightedAnswer,
    fold_spaces,
    read_label,
    read_texts,
    spell_answers,
    usable_rows,
)
from shards.training.dialogue_file import DialogueRow, dialogues, is_dialogues
from shards.training.json_file import AnnotationError, load_json, read_json
from shards.training.left_out import LeftOut
from shards.training.picture_name import NamesTogether, PictureName, unusable
from shards.training.raw_file import rows_of

Kind = Literal["captions", "questions", "statements", "dialogues"]
"""What a source's texts are: they say what a picture shows, ask about it (alone, or after other
questions), or claim something of two."""

VISUAL_GENOME_WEIGHT = 0.2  # of its one answer, as in BLIP's training


@dataclass(frozen=True, slots=True)
class Annotation:
    """One row: the names of its pictures below the images' folder, and what is said of them."""

    pictures: tuple[PictureName, ...]
    texts: tuple[SourceText, ...]


@dataclass(frozen=True, slots=True)
class Annotations:
    """The usable rows of a file, all of one kind, and its content's hash."""

    kind: Kind
    rows: tuple[Annotation, ...]
    left_out: LeftOut
    sha256: str
    names: NamesTogether = field(compare=False)


def read_annotations(url: str, split: str | None = None, answers: str | None = None) -> Annotations:
    """Read a file, local or of any fsspec store; AnnotationError where it is no list of rows.

    `split` and `answers` are as for `raw_file.rows_of`.
    """
    versions = tuple(_version(one) for one in (url, answers) if one is not None)
    return _read(url, split, answers, versions)


def check_there(*urls: str | None) -> None:
    """Raise AnnotationError where one of these is no file; none is read."""
    for url in filter(None, urls):
        _version(url)


def _version(url: str) -> str:
    fs, path = filesystem(url)
    try:
        if fs.isdir(path):
            raise IsADirectoryError(path)
        return str(fs.ukey(path))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise AnnotationError(f"{url} is no file") from error


@lru_cache(maxsize=4)  # the lanes of a training read the same file by turns
def _read(
    url: str, split: str | None, answers: str | None, _versions: tuple[str, ...]
) -> Annotations:
    content = load_json(url)
    left_out = LeftOut()
    kind: Kind = "dialogues"
    if is_dialogues(content.value):
        rows = tuple(_questions_of(content.value, left_out))
    else:
        listed = _rows(url, content.value, split, answers)
        kind = _kind(listed, url)
        rows = tuple(usable_rows(listed, _READERS[kind], left_out))
    sha256 = content.sha256
    if split is not None or answers is not None:  # other samples than those of the whole file
        others = f"{split}\n{answers and load_json(answers).sha256}"
        sha256 = hashlib.sha256(f"{sha256}\n{others}".encode()).hexdigest()
    names = NamesTogether(name for row in rows for name in row.pictures)
    return Annotations(kind, rows, left_out, sha256, names)


def _rows(
    url: str,
    parsed: Any,  # noqa: ANN401 - any JSON value
    split: str | None,
    answers: str | None,
) -> list[Any]:
    rows = rows_of(url, parsed, split, answers)
    if rows is None:
        raise AnnotationError(f"{url}: expected a JSON list of rows, found {_form(parsed)}")
    return rows


def _form(parsed: Any) -> str:  # noqa: ANN401 - any JSON value
    keys = sorted(parsed)[:10] if isinstance(parsed, dict) else []
    return f"{type(parsed).__name__}{f' with {keys}' if keys else ''}"


def read_rows(
    url: str, fields: Sequence[str], split: str | None = None, answers: str | None = None
) -> list[Fields]:
    """Read a file's rows as they are, for evaluation; what is no object is an empty row.

    AnnotationError where it is no list, or no row has the fields. `split` and `answers` are as for
    `raw_file.rows_of`.
    """
    given = rows_of(url, read_json(url), split, answers)
    rows: list[Fields] = [row if isinstance(row, dict) else {} for row in given or ()]
    if not any(all(name in row for name in fields) for row in rows):
        first = (
            f"a list of {len(rows):,}, the first with {sorted(rows[0])[:10]}" if rows else "none"
        )
        raise AnnotationError(
            f"{url}: expected a JSON list of rows with {', '.join(fields)}, found {first}"
        )
    return rows


def read_captioned(url: str, split: str | None = None) -> list[Fields]:
    """Read rows of pictures with their captions, or without any; AnnotationError for questions."""
    rows = read_rows(url, ("image",), split)
    if not any("caption" in row for row in rows) and any("question" in row for row in rows):
        raise AnnotationError(
            f"{url} holds questions about pictures, and no captions: evaluate vqa reads it; give "
            "a file with captions (COCO's captions_*.json, a file of Karpathy's splits)"
        )
    return rows


def read_dialogues(url: str) -> tuple[list[DialogueRow], LeftOut]:
    """Read VisDial's file, and count by reason what cannot be used; AnnotationError if it is not.

    Candidates come along, and without them the rounds of the test split.
    """
    parsed, left_out = read_json(url), LeftOut()
    if not is_dialogues(parsed):
        raise AnnotationError(
            f"{url}: expected an object with data: questions, answers, dialogs, as VisDial 1.0's "
            f"files are; found {_form(parsed)}"
        )
    return list(dialogues(parsed, left_out)), left_out


def read_answers(url: str) -> list[str]:
    """Read a JSON list of answers, such as VQA's answer_list.json; blank and repeated ones go."""
    answers = answers_in(read_json(url))
    if not answers:
        raise AnnotationError(f"{url}: expected a JSON list of answers, found none in it")
    return answers


def answers_in(parsed: Any) -> list[str]:  # noqa: ANN401 - any JSON value
    """List the answers of a JSON list; none where it is no such list."""
    listed = spell_answers(parsed) if isinstance(parsed, list) else []
    return list(dict.fromkeys(text for item in listed if (text := fold_spaces(item))))


def _kind(listed: list[Any], url: str) -> Kind:
    """Tell the kind by the first row that has the fields of one."""
    for row in listed:
        fields = row if isinstance(row, dict) else {}
        for kind, names in _FIELDS.items():
            if all(name in fields for name in names):
                return kind
    wanted = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in _FIELDS.items())
    first = listed[0] if listed and isinstance(listed[0], dict) else {}
    advice = "; answers stand in a file of their own: name it as answers" * ("question" in first)
    raise AnnotationError(
        f"{url}: no row has the fields of a known kind ({wanted}); the first has "
        f"{sorted(first)[:10] or 'no objects'}{advice}"
    )


def _questions_of(parsed: Fields, left_out: LeftOut) -> Iterator[Annotation]:
    """Make a row of each answered question of a file's dialogues."""
    for dialogue in dialogues(parsed, left_out):
        before: tuple[tuple[str, str], ...] = ()
        for turn in dialogue.rounds:
            answers = (WeightedAnswer(turn.answer, 1.0),)
            asked = (dialogue.caption, before, turn.options)
            text = SourceText(turn.question, HUMAN, answers, None, *asked)
            before = (*before, (turn.question, turn.answer))
            if turn.answer:
                yield Annotation((dialogue.image_id,), (text,))
            else:
                left_out[TextReason.EMPTY] += 1


def _captions(fields: Fields) -> Annotation | str:
    if "caption" not in fields:
        return MISSING_COLUMN
    texts = read_texts(fields["caption"])
    if isinstance(texts, str):
        return texts
    captions = tuple(SourceText(text, HUMAN) for text in texts if text)
    return _row([fields.get("image")], captions) if captions else TextReason.EMPTY


def _question(fields: Fields) -> Annotation | str:
    if "question" not in fields or "answer" not in fields:
        return MISSING_COLUMN
    asked, given = read_texts([fields["question"]]), read_texts(spell_answers(fields["answer"]))
    if isinstance(asked, str):
        return asked
    if isinstance(given, str):
        return given
    (question,), answers = asked, weigh_answers(given, fields.get("dataset") == "vg")
    if not question or not answers:
        return TextReason.EMPTY
    return _row([fields.get("image")], (SourceText(question, HUMAN, answers),))


def weigh_answers(answers: list[str], is_visual_genome: bool = False) -> tuple[WeightedAnswer, ...]:
    """Weigh each answer by its share of the annotators, blank ones too; the blank ones then go."""
    counts = Counter(answers)
    return tuple(
        WeightedAnswer(text, VISUAL_GENOME_WEIGHT if is_visual_genome else count / len(answers))
        for text, count in counts.items()
        if text
    )


def _statement(fields: Fields) -> Annotation | str:
    if reason := statement_reason(fields):
        return reason
    said, label = str(fold_spaces(fields["sentence"])), read_label(fields["label"])
    return _row(fields["images"], (SourceText(said, HUMAN, label=label),))


def statement_reason(fields: Fields) -> str | None:
    """Return why a statement cannot be used, its pictures aside; None if it can."""
    names = _FIELDS["statements"]
    if not all(name in fields for name in names):
        return MISSING_COLUMN
    if any(fields[name] is None for name in names):
        return NULL_VALUE
    said, images = fold_spaces(fields["sentence"]), fields["images"]
    is_pair = isinstance(images, list) and len(images) == 2
    if said is None or read_label(fields["label"]) is None or not is_pair:
        return WRONG_TYPE
    return None if said else TextReason.EMPTY


def _row(pictures: list[Any], texts: tuple[SourceText, ...]) -> Annotation | str:
    """Make a row, unless a picture's name leads out of the images' folder."""
    reasons = [reason for name in pictures if (reason := unusable(name)) is not None]
    return reasons[0] if reasons else Annotation(tuple(pictures), texts)


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
