"""Mutated annotation files give rows and counts, or one message; and no name leads astray."""

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards.training.annotation_file import read_annotations, read_rows
from shards.training.json_file import AnnotationError
from shards.training.left_out import Unusable
from shards.training.picture_folder import PictureFolder
from shards.training.video_file import read_clips

PICTURES = ("a.jpg", "v/COCO_1.jpg")
PEOPLE = {"annotations": [{"question_id": 1, "answers": [{"answer": "x"}], "answer_type": "t"}] * 2}
KARPATHY = {"filename": "a.jpg", "filepath": "v", "split": "test", "sentences": [{"raw": "a"}]}
FILES: list[Any] = [
    PEOPLE,
    [{"image": "a.jpg", "caption": ["x", "y"]}] * 3,
    {"images": [KARPATHY] * 3},
    {
        "images": [{"id": 1, "file_name": "a.jpg"}] * 2,
        "annotations": [{"image_id": 1, "caption": "x"}] * 3,
    },
    {"questions": [{"image_id": 1, "question": "q", "question_id": 1}] * 3},
    [{"image": "a.jpg", "question": "q", "answer": ["x", 2, None]}] * 3,
    [{"id": 1, "qas": [{"image_id": 1, "question": "q", "answer": "x"}]}] * 2,
    [{"identifier": "dev-1-0-1", "sentence": "s", "label": "True"}] * 3,
    [{"images": ["a.jpg", "v\\COCO_1.jpg"], "sentence": "s", "label": 1}] * 3,
    {"data": [{"image_id": "0a", "caption_str": "x"}] * 3},
    [{"video_id": 1, "question": "q", "answer": "a"}] * 2,
    [{"clip_name": "v", "caption": "a"}] * 2,
]
ODD: list[Any] = [
    *(None, True, False, 0, -1, 3.5, 1e400, 10**30, "", " ", "x", "test", [], {}, [None], [[]]),
    *("a.jpg", "../a", "C:\\a.jpg", "/a/b.jpg", "%2e%2e/a", "\ud800", "\0", "a" * 5000, {"a": 1}),
]
KEYS = (
    *("image", "images", "caption", "split", "sentences", "filename", "question", "answers", "qas"),
    *("question_id", "image_id", "id", "identifier", "label", "data", "annotations", "questions"),
)


def mutated(value: Any, rng: random.Random) -> Any:
    """Put odd values in, and take keys out or rename them."""
    if rng.random() < 0.05:
        return rng.choice(ODD)
    if isinstance(value, list):
        return [mutated(item, rng) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: item for key, item in value.items() if rng.random() > 0.04}
    changed = {
        rng.choice(KEYS) if rng.random() < 0.04 else k: mutated(v, rng) for k, v in kept.items()
    }
    return changed | ({rng.choice(KEYS): rng.choice(ODD)} if rng.random() < 0.08 else {})


def spoiled(data: bytes, rng: random.Random) -> bytes:
    """Change some bytes, cut the end off, pack it: each now and then."""
    content = bytearray(data)
    for _ in range(rng.randint(1, 6) if rng.random() < 0.2 else 0):
        content[rng.randrange(len(content))] = rng.randrange(256)
    if rng.random() < 0.1:
        del content[rng.randrange(len(content)) :]
    return gzip.compress(content) if rng.random() < 0.1 else bytes(content)


def rows_or_none(read: Callable[..., Any], *arguments: Any) -> Any:
    """The rows of a file, or none where it is refused; anything else is raised."""
    try:
        content = read(*arguments)
    except AnnotationError:
        return None
    return getattr(content, "rows", content)


@pytest.mark.parametrize(
    ("seed", "count"), [(1, 400), pytest.param(2, 20_000, marks=pytest.mark.nightly)]
)
@pytest.mark.timeout(900)
def test_mutated_files(tmp_path: Path, seed: int, count: int) -> None:
    folder, rng, used = tmp_path / "images", random.Random(seed), 0
    for name in PICTURES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    pictures, answers = PictureFolder(str(folder)), tmp_path / "answers.json"
    for number in range(count):
        parsed = mutated(rng.choice(FILES), rng)
        has_lines = isinstance(parsed, list) and parsed and rng.random() < 0.4
        text = "\n".join(map(json.dumps, parsed)) if has_lines else json.dumps(parsed)
        path = tmp_path / f"{number % 99}{rng.choice(['.json', '.jsonl'])}"
        path.write_bytes(spoiled(text.encode(), rng))
        answers.write_text(json.dumps(mutated(PEOPLE, rng)))
        more = (rng.choice([None, None, "test"]), rng.choice([None, None, str(answers)]))
        for reading in (
            (read_annotations, str(path), *more),
            (read_rows, str(path), ("image",), *more),
            (read_clips, str(path)),
        ):
            rows = rows_or_none(*reading)
            used += rows is not None
            for name in (name for row in rows or () for name in getattr(row, "pictures", ())):
                picture = pictures.read(name)
                if not isinstance(picture, Unusable):
                    assert picture.data == picture.path.encode()
    assert used > count // 4, f"seed {seed}: {used} of {count}"  # the others were refused
