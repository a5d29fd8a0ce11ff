"""Vocabularies as files, read only where what they ask for is WordPiece, and bounded.

A tokenizer.json may hold regular expressions, which can take for ever on a short text, and models
of other kinds. BLIP's have none: what is not BERT's kind is refused by name.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from models.bounded_file import VOCABULARY_BYTES, fault_of, read_bounded

MOST_WORDS = 1 << 20
_MOST_ADDED = 10_000
_MOST_STEPS = 16  # of a normaliser, a splitter, or a frame of special tokens
_MOST_LETTERS = 256  # of a word that is cut into pieces, which takes their square; BERT: 100
# each takes time that grows with the text's length alone
_KINDS: Mapping[str, frozenset[str]] = {
    "normalizer": frozenset(
        ("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Strip", "StripAccents")
    ),
    "pre_tokenizer": frozenset(
        ("BertPreTokenizer", "Punctuation", "Whitespace", "WhitespaceSplit")
    ),
    "model": frozenset(("WordPiece",)),
    "post_processor": frozenset(("BertProcessing", "TemplateProcessing")),
    "decoder": frozenset(("WordPiece",)),
}
_SEQUENCES = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers"}


def read_words(path: Path) -> dict[str, int]:
    """Read a vocab.txt, one word a line, to the words' ids; ValueError if it is none."""
    text = read_bounded(path, VOCABULARY_BYTES).decode("utf-8-sig")
    if text.count("\r\n") == text.count("\n"):  # as Windows ends lines
        text = text.replace("\r\n", "\n")
    text = text.removesuffix("\n")
    count = text.count("\n") + 1
    if count > MOST_WORDS:
        raise ValueError(f"{path} has {count} words; expected at most {MOST_WORDS}")
    words = text.split("\n")
    if len(set(words)) != len(words):
        raise ValueError(f"{path} names a word twice; expected one word a line")
    return {word: index for index, word in enumerate(words)}


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer.json of BERT's kind; ValueError names what is of another."""
    try:
        block = json.loads(read_bounded(path, VOCABULARY_BYTES))
        _check(block)
        return Tokenizer.from_str(json.dumps(block))  # what was checked, and nothing else
    except Exception as error:  # the Rust library raises plain Exception on a broken file
        raise ValueError(fault_of(path, "is no readable tokenizer", error)) from error


def _check(block: Mapping[str, Any]) -> None:
    for part, kinds in _KINDS.items():
        for step in _steps(part, block.get(part)):
            if step["type"] not in kinds:
                raise ValueError(
                    f"its {part} is {str(step['type'])[:40]!r}; BLIP's are {sorted(kinds)}"
                )
    model, frame = block["model"], block.get("post_processor") or {}
    letters = model.get("max_input_chars_per_word", 0)
    ids = [*model["vocab"].values(), *(added["id"] for added in block.get("added_tokens") or ())]
    for what, count, most in (
        ("words", len(ids), MOST_WORDS),
        ("the highest id", max(ids, default=0), MOST_WORDS),
        ("added words", len(ids) - len(model["vocab"]), _MOST_ADDED),
        ("letters of a word", letters, _MOST_LETTERS),
        ("pieces of a frame", len(frame.get("single", ())), _MOST_STEPS),
        ("pieces of a frame", len(frame.get("pair", ())), _MOST_STEPS),
    ):
        if not 0 <= count <= most:
            raise ValueError(f"{what}: {count}; expected at most {most}")


def _steps(part: str, block: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if block is None and part != "model":
        return []
    if block is None:
        raise ValueError("it has no model")
    if part not in _SEQUENCES or block["type"] != "Sequence":
        return [block]
    steps: list[Mapping[str, Any]] = block[_SEQUENCES[part]]
    if len(steps) > _MOST_STEPS:
        raise ValueError(f"its {part} has {len(steps)} steps; expected at most {_MOST_STEPS}")
    return steps
