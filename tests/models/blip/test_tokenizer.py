"""Normalising, token ids, and vocabularies learnt from texts."""

import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from models.blip import tokenizer
from models.blip.tokenizer import WordPiece, normalise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A Man, riding: a horse!", "a man, riding a horse"),
        ('"Quoted" (2019) ~ #1; *new*', "quoted 2019 1 new"),
        ("  two\n\n lines\there \n", "two lines\there"),
        ("keeps - this & that's 100%", "keeps - this & that's 100%"),
        ("...", ""),
        ("ÄRGER", "ärger"),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected


def dec_id_of(parity: Path) -> int:
    """The id of [DEC], which stands right behind the words of the vocabulary."""
    return len((parity / "vocab.txt").read_text().splitlines())


def test_ids_equal_the_references(
    parity: Path, hf_values: dict[str, Tensor], hf_facts: dict[str, Any]
) -> None:
    ids, grounded = hf_values["in.itm_input_ids_cls"], hf_values["in.itm_input_ids_enc"]
    words, most = tokenizer.load(parity / "hf/retrieval", dec_id_of(parity)), ids.shape[1]
    for piece, row in zip(words.encode(hf_facts["texts"]), ids.tolist(), strict=True):
        framed = [words.cls_id, *piece[: most - 2], words.sep_id]
        assert framed + [words.pad_id] * (most - len(framed)) == row
    assert words.enc_id == grounded[0, 0]
    stored = json.loads((parity / "hf/retrieval/config.json").read_text())
    assert words.size == stored["text_config"]["vocab_size"]


def test_a_bare_vocabulary_gives_the_same_ids(parity: Path, hf_facts: dict[str, Any]) -> None:
    bare = tokenizer.load(parity, dec_id_of(parity))  # the folder holds vocab.txt alone
    full = tokenizer.load(parity / "hf/retrieval", dec_id_of(parity))
    assert tokenizer.source(parity).name == "vocab.txt"
    assert bare.encode(hf_facts["texts"]) == full.encode(hf_facts["texts"])
    ids = bare.encode(hf_facts["texts"])
    assert bare.decode(ids) == full.decode(ids)


def test_special_names_in_a_text_are_only_words(words: WordPiece) -> None:
    reserved = {words.pad_id, words.cls_id, words.sep_id, words.dec_id, words.enc_id}
    ids = words.encode([normalise("a dog [SEP] [ENC] [DEC] [PAD] [CLS] a cat")])[0]
    assert not reserved & set(ids)


def test_training_gives_the_same_vocabulary_twice() -> None:
    corpus = ["A red ring above a blue star.", "a green ring below a red square"] * 2
    first, second = tokenizer.train(corpus, 80), tokenizer.train(corpus, 80)
    assert first.to_json() == second.to_json()
    assert first.size <= 80
    assert (first.dec_id, first.enc_id) == (first.size - 2, first.size - 1)
    assert first.decode(first.encode(["a red star"])) == ["a red star"]


def test_extra_ids_behind_the_vocabulary_decode_to_nothing(parity: Path) -> None:
    words = tokenizer.load(parity / "hf/captioning", dec_id_of(parity))
    dog = words.encode(["dog"])[0]
    assert words.decode([[words.dec_id, *dog, words.enc_id, words.sep_id]]) == ["dog"]


@pytest.mark.parametrize("content", ["", "{}", '{"model": {"type": "WordPiece"}}'])
def test_a_broken_tokenizer_is_a_value_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match="tokenizer"):
        tokenizer.load(tmp_path, 5)
    with pytest.raises(ValueError, match=r"neither tokenizer\.json nor vocab\.txt"):
        tokenizer.load(tmp_path / "none", 5)


def test_pads_fall_away_whatever_their_id() -> None:
    words = tokenizer.train(["a red circle", "a blue square"], 60)
    assert words.pad_id == 0
    assert words.decode([[words.pad_id, *words.encode(["a red circle"])[0], words.pad_id]]) == [
        "a red circle"
    ]
