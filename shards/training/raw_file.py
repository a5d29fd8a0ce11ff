"""Files as the data sets publish them, brought into the rows that the field's loaders read.

Such a row has `image` and `caption`, `image`, `question` and `answer`, or `images`, `sentence` and
`label`. `image` is a name, or the picture's number, where a file knows no more. Read are files of
Karpathy's splits, COCO, nocaps, TextCaps, VQA, TextVQA, VizWiz, A-OKVQA, Visual Genome and NLVR2;
rows that are in that form already stay as they are.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from shards.training.annotation import Fields
from shards.training.json_file import AnnotationError, read_json

Rows = list[Any]

_NAMES = ("image", "image_path", "file_name", "filename", "image_name", "image_id")
_ANSWERS = ("answer", "answers", "direct_answers")
_NLVR = re.compile(r"(.+)-\d+")  # a pair's pictures, and the number of the statement about them
_BOXES = ("bbox", "segmentation", "segments_info", "keypoints", "category_id")


def rows_of(
    url: str,
    parsed: Any,  # noqa: ANN401 - any JSON value
    split: str | None = None,
    answers: str | None = None,
) -> Rows | None:
    """Return the rows of a parsed file; None where it has none of the forms.

    `split` is one of the file's, or several: `train+restval`. `answers` is the file of the people's
    answers, where one of VQA's has questions alone. AnnotationError says what is missing.
    """
    rows = _listed(url, parsed)
    if rows is None:
        return None
    if answers is not None:
        rows = _with_answers(url, rows, answers)
    listed = _list(parsed, "images") if isinstance(parsed, dict) else parsed
    return _of_split(url, rows, split, is_mixed=not _is_karpathy(listed))


def people_answers(parsed: Any) -> dict[str, Fields] | None:  # noqa: ANN401 - any JSON value
    """Return VQA's annotations by question; None where a file is another one."""
    listed = _list(parsed, "annotations") if isinstance(parsed, dict) else []
    rows = [row for row in listed if isinstance(row, dict) and "question_id" in row]
    by_question = {_key(row["question_id"]): row for row in rows if _has_answers(row)}
    return {key: row for key, row in by_question.items() if key is not None} or None


def has_questions(parsed: Any) -> bool:  # noqa: ANN401 - any JSON value
    """Whether a parsed file holds questions about pictures, in any of the forms."""
    listed = parsed
    if isinstance(parsed, dict):
        listed = _list(parsed, "questions") or _list(parsed, "data")
    rows = listed if isinstance(listed, list) else []
    rows = [row for row in rows if isinstance(row, dict)]
    return any("question" in row or "qas" in row for row in rows)


def _listed(url: str, parsed: Any) -> Rows | None:  # noqa: ANN401 - any JSON value
    if isinstance(parsed, list):
        return _rows(parsed)
    if not isinstance(parsed, dict):
        return None
    images, annotations = _list(parsed, "images"), _list(parsed, "annotations")
    if _is_karpathy(images):
        return _rows(images)
    if isinstance(parsed.get("questions"), list):
        return _rows(parsed["questions"])
    if images:
        return _coco(url, images, annotations)
    if people_answers(parsed) is not None:
        raise AnnotationError(
            f"{url} has the answers to VQA's questions: give the file of the questions as the "
            "annotations, and this one as the answers (--answers)"
        )
    return _rows(_list(parsed, "data") or annotations) or None


def _rows(listed: Rows) -> Rows:
    if _is_karpathy(listed):
        return [_karpathy(image) for image in listed]
    rows: Rows = []
    for item in listed:
        nested = item.get("qas") if isinstance(item, dict) else None  # Visual Genome's
        if isinstance(nested, list):
            rows += [{"dataset": "vg", **qa} if isinstance(qa, dict) else qa for qa in nested]
        else:
            rows.append(item)
    if any(isinstance(row, dict) and "caption_str" in row for row in rows):
        return _text_caps(rows)
    return [_row(row) if isinstance(row, dict) else row for row in rows]


def _row(fields: Fields) -> Fields:
    """Put what a row says under the names of the field's loaders; what is there stays."""
    added: dict[str, Any] = {}
    identifier = fields.get("identifier")
    pair = _NLVR.fullmatch(identifier) if isinstance(identifier, str) else None
    if "images" not in fields and pair is not None:
        added["images"] = [f"{pair[1]}-img{side}.png" for side in (0, 1)]
    elif "image" not in fields and (name := _first(fields, _NAMES)) is not None:
        added["image"] = _joined(fields) if name == "filename" else fields[name]
    if "caption" not in fields and "captions" in fields:
        added["caption"] = fields["captions"]
    if "answer" not in fields and (name := _first(fields, _ANSWERS)) is not None:
        added["answer"] = fields[name]
    answers = added.get("answer", fields.get("answer"))
    if isinstance(answers, list) and any(isinstance(item, dict) for item in answers):
        added["answer"] = [i.get("answer") if isinstance(i, dict) else i for i in answers]
    return {**fields, **added} if added else fields


def _is_karpathy(images: Rows) -> bool:
    return any(isinstance(image, dict) and "sentences" in image for image in images)


def _karpathy(image: Any) -> Any:  # noqa: ANN401 - any JSON value
    if not isinstance(image, dict):
        return image
    said = image.get("sentences")
    if isinstance(said, list):
        said = [item.get("raw") if isinstance(item, dict) else item for item in said]
    names = {"split": "split", "cocoid": "img_id"}
    kept = {new: image[old] for old, new in names.items() if old in image}
    return {"image": _joined(image), "caption": said, **kept}


def _joined(fields: Fields) -> Any:  # noqa: ANN401 - any JSON value
    """Put a file's folder before its name, where Karpathy's files have one."""
    folder, name = fields.get("filepath"), fields.get("filename")
    return f"{folder}/{name}" if folder and isinstance(name, str) else name


def _coco(url: str, images: Rows, annotations: Rows) -> Rows:
    """Gather the captions of each picture; without any, as of nocaps' test, pictures are alone."""
    said: dict[str, list[Any]] = defaultdict(list)
    rows = [row for row in annotations if isinstance(row, dict)]
    for row in rows:
        if "caption" in row and (key := _key(row.get("image_id"))) is not None:
            said[key].append(row["caption"])
    if not said and any(name in row for row in rows for name in _BOXES):
        raise AnnotationError(
            f"{url} has objects, as COCO's instances, keypoints and panoptic files: no captions; "
            "expected captions_*.json"
        )
    made: Rows = []
    named: dict[str, Any] = {}
    for image in images:
        fields = _row(image) if isinstance(image, dict) else image
        if isinstance(fields, dict) and (key := _key(fields.get("id"))) is not None:
            name = fields.get("image")
            if named.setdefault(key, name) != name:
                raise AnnotationError(
                    f"{url}: two pictures have the id {key}, {named[key]!r} and {name!r}: which of "
                    "them a caption is of cannot be told"
                )
            captions = {"caption": said.get(key, [])} if said else {}
            fields = {**fields, "img_id": fields["id"], **captions}
        made.append(fields)
    return made


def _text_caps(rows: Rows) -> Rows:
    """Gather the captions of each picture, which TextCaps has in rows of their own."""
    gathered: dict[Any, Any] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            gathered[number, None] = row
            continue
        # not by `image_path`: its folders are named otherwise than those that are downloaded
        image_id = row.get("image_id")
        named = _row(row if image_id is None else {"image": image_id, "img_id": image_id, **row})
        name = image_id if image_id is not None else named.get("image")
        key = name if isinstance(name, str | int) else (number, None)
        fields = gathered.setdefault(key, {**named, "caption": []})
        fields["caption"].append(row.get("caption_str"))
    return list(gathered.values())


def _with_answers(url: str, rows: Rows, answers: str) -> Rows:
    by_question = people_answers(read_json(answers))
    if by_question is None:
        raise AnnotationError(
            f"{answers}: expected VQA's annotations, with question_id and answers; found none"
        )
    joined = [
        _answered(answers, row, by_question.get(_key(row.get("question_id")) or ""))
        if isinstance(row, dict)
        else row
        for row in rows
    ]
    if not any(isinstance(row, dict) and "answer" in row for row in joined):
        raise AnnotationError(
            f"{answers} answers none of the {len(rows):,} questions of {url}: their question_id "
            "differ; is it the file of the same split?"
        )
    return joined


def _answered(url: str, row: Fields, answered: Fields | None) -> Fields:
    if answered is None:
        return row
    asked_of, told_of = _key(row.get("image_id")), _key(answered.get("image_id"))
    if asked_of is not None and told_of is not None and asked_of != told_of:
        raise AnnotationError(
            f"{url}: question {_key(row['question_id'])} is about picture {asked_of}, its answers "
            f"are about {told_of}: is it the file of the same split?"
        )
    given = answered.get("answers") or [answered.get("multiple_choice_answer")]
    kinds = {k: answered[k] for k in ("question_type", "answer_type") if k in answered}
    return _row({**row, **kinds, "answer": given})


def _has_answers(row: Fields) -> bool:
    return isinstance(row.get("answers"), list) or "multiple_choice_answer" in row


def _of_split(url: str, rows: Rows, split: str | None, *, is_mixed: bool) -> Rows:
    """Choose the rows of a split; `is_mixed` says that all may be taken together."""
    named = [str(row.get("split", "")) if isinstance(row, dict) else "" for row in rows]
    counts = Counter(name for name in named if name)
    there = ", ".join(f"{name} {count:,}" for name, count in counts.most_common(20)) or "none"
    if split is None:
        if len(counts) > 1 and not is_mixed:
            raise AnnotationError(
                f"{url} has splits ({there}): choose one with --split, or split in a recipe; "
                "several: train+restval"
            )
        return rows
    wanted = {name.strip() for name in split.split("+")}
    if unknown := sorted(wanted - counts.keys()):
        raise AnnotationError(f"{url} has no split {unknown[0]!r}; it has: {there}")
    return [row for row, name in zip(rows, named, strict=True) if name in wanted]


def _key(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
    """Make an id comparable: one file may write as a number what another writes as text.

    Tables with gaps write 42 as 42.0. None for what is no id: a null joins nothing.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def _first(fields: Fields, names: Iterable[str]) -> str | None:
    return next((name for name in names if name in fields), None)


def _list(parsed: Mapping[str, Any], name: str) -> Rows:
    value = parsed.get(name)
    return value if isinstance(value, list) else []
