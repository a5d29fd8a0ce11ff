"""The language of texts as they stand beside pictures, by a list that people labelled."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from pipeline.clean.text.language import CODES, UNKNOWN, detect_language

LONG = 20  # characters
LABELLED = [
    (label, text)
    for line in Path(__file__).with_name("languages.tsv").read_text("utf-8").splitlines()
    for label, text in [line.split("\t")]
]
TOLD = [(label, text) for label, text in LABELLED if label != UNKNOWN]


def test_the_list_is_as_large_as_it_should_be() -> None:
    assert len(TOLD) >= 200
    assert len({label for label, _ in TOLD}) >= 10
    assert len({text for _, text in LABELLED}) == len(LABELLED)


def test_most_texts_of_a_few_words_are_told() -> None:
    texts = [(label, text) for label, text in TOLD if len(text) >= LONG]
    right = [label == detect_language(text) for label, text in texts]
    assert sum(right) / len(texts) >= 0.9
    for language in {label for label, _ in texts}:
        own = [found for found, (label, _) in zip(right, texts, strict=True) if label == language]
        assert sum(own) / len(own) >= 0.6, language


def test_shorter_texts_are_rather_unknown_than_wrong() -> None:
    texts = [(label, text) for label, text in TOLD if len(text) < LONG]
    wrong = [text for label, text in texts if detect_language(text) not in (label, UNKNOWN)]
    assert len(wrong) / len(texts) <= 0.05


@pytest.mark.parametrize("text", [text for label, text in LABELLED if label == UNKNOWN])
def test_numbers_and_names_of_files_have_no_language(text: str) -> None:
    assert detect_language(text) == UNKNOWN


@pytest.mark.parametrize("text", ["", " ", "a", "\ud800" * 20, "\0" * 50, "\U0001d504" * 3])
def test_odd_texts_do_no_harm(text: str) -> None:
    assert detect_language(text) in CODES | {UNKNOWN}


def test_a_long_text_costs_no_more_than_its_beginning() -> None:
    text = "A brown dog runs along the beach at sunset. "
    detect_language(text)
    before = time.thread_time()
    assert detect_language(text * 250_000) == "en"  # 11 MB
    assert time.thread_time() - before < 1


def test_threads_share_one_model() -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(detect_language, [text for _, text in TOLD]))
    assert found == [detect_language(text) for _, text in TOLD]


def test_the_codes_are_those_of_the_model() -> None:
    labels = LanguageIdentifier.from_model_file(MODEL_FILE).labels
    assert set(labels) - {"zxx"} == CODES
