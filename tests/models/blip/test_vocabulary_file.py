"""A tokenizer is read if it is of BERT's kind, and refused by name if not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from models.blip import tokenizer
from models.blip.tokenizer import WordPiece
from models.blip.vocabulary_file import MOST_WORDS, read_tokenizer, read_words

REGEX = {"Regex": "(a|a)*b"}
REPLACE = {"type": "Replace", "pattern": REGEX, "content": ""}
SPLIT = {"type": "Split", "pattern": REGEX, "behavior": "Isolated", "invert": False}


@pytest.fixture
def changed(words: WordPiece, tmp_path: Path) -> Callable[..., Path]:
    """Write a tokenizer with other values for some of its keys; dots lead into an object."""

    def change(**values: Any) -> Path:
        block = json.loads(words.to_json())
        for name, value in values.items():
            part, _, key = name.rpartition("__")
            (block[part] if part else block)[key] = value
        path = tmp_path / "tokenizer.json"
        path.write_text(json.dumps(block))
        return path

    return change


def test_what_is_read_is_what_the_library_reads(changed: Callable[..., Path]) -> None:
    path = changed()
    assert read_tokenizer(path).to_str() == Tokenizer.from_file(str(path)).to_str()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"normalizer": REPLACE}, "its normalizer is 'Replace'; BLIP's are"),
        ({"normalizer": {"type": "Sequence", "normalizers": [REPLACE]}}, "'Replace'"),
        ({"pre_tokenizer": SPLIT}, "its pre_tokenizer is 'Split'; BLIP's are"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [SPLIT]}}, "'Split'"),
        ({"decoder": REPLACE}, "its decoder is 'Replace'"),
        ({"model__type": "BPE"}, "its model is 'BPE'"),
        ({"model": None}, "it has no model"),
        ({"model__max_input_chars_per_word": 10**9}, "letters of a word: 1000000000"),
        ({"model__vocab": {"[PAD]": 10**9}}, "the highest id: 1000000000"),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFD"}] * 99}}, "99 steps"),
        ({"post_processor__single": [{"Sequence": {"id": "A", "type_id": 0}}] * 99}, "frame: 99"),
        ({"added_tokens": [{"id": 0, "content": "x"}] * 10_001}, "added words: 10001"),
    ],
)
def test_what_is_not_berts_is_named(
    changed: Callable[..., Path], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"tokenizer.json is no readable tokenizer: .*{message}"):
        read_tokenizer(changed(**values))


def test_steps_that_take_no_time_are_read(changed: Callable[..., Path]) -> None:
    steps = [{"type": "NFD"}, {"type": "StripAccents"}, {"type": "Lowercase"}]
    path = changed(normalizer={"type": "Sequence", "normalizers": steps})
    assert read_tokenizer(path).normalizer.normalize_str("ÄÖ") == "ao"


def test_a_second_key_of_one_name_is_not_read_otherwise(changed: Callable[..., Path]) -> None:
    path = changed()
    first = f'{{"normalizer": {json.dumps(REPLACE)},'
    path.write_text(path.read_text().replace("{", first, 1))
    assert "Replace" not in read_tokenizer(path).to_str()


def test_a_vocabulary_has_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("a\nb\n")
    assert read_words(path) == {"a": 0, "b": 1}
    path.write_text("a\n" * (MOST_WORDS + 2))
    with pytest.raises(ValueError, match=f"expected at most {MOST_WORDS}"):
        read_words(path)
    path.write_text("a\nb\na\n")
    with pytest.raises(ValueError, match="a word twice"):
        read_words(path)


def test_the_highest_id_counts_every_word(words: WordPiece, changed: Callable[..., Path]) -> None:
    assert words.highest_id == words.size - 1
    vocabulary = json.loads(words.to_json())["model"]["vocab"] | {"far": 5000}
    assert tokenizer.load(changed(model__vocab=vocabulary).parent).highest_id == 5000
