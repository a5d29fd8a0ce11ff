"""Web texts by language, counted against rows that are made here."""

import pytest

from shards.query import languages
from shards.query.languages import language_statistics
from shards.run.run import Run
from shards.run.snapshot import write_snapshot
from shards.schema import SAMPLES
from tests.shards.conftest import MakeRun


def test_runs_of_before_have_none(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url)
    assert SAMPLES.field("language").nullable
    found = language_statistics(run, write_snapshot(run).shards)
    assert found == {"languages": {}, "languages_of_shards": 3}
    assert language_statistics(run, []) == {"languages": {}, "languages_of_shards": 0}


@pytest.fixture
def told(any_url: str, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Make a run whose samples say a language: de for each third; the second of a shard is out."""
    from tests.shards import conftest

    made = conftest._rows

    def with_language(sample):
        row, texts, decisions = made(sample)
        row["language"] = "de" if sample.index % 3 == 0 else "en"
        if row["status"] == "ok" and sample.index == 1:
            row["text_reason"] = "text_language"
            texts, decisions = texts[1:], decisions[1:]
        return row, texts, decisions

    monkeypatch.setattr(conftest, "_rows", with_language)
    return make_run(any_url)


def test_counts(told: Run) -> None:
    # index: 0 de, 1 en (out), 2 en, 3 de, 4 rejected, 5 en, 6 de, 7 en, 8 en, 9 rejected, 10 en,
    # 11 en; itm of the web text is (7 * index % 11) / 10, and is kept from 0.5 on: 3, 5, 7 not 0...
    shards = write_snapshot(told).shards[:2]
    kept = {index for index in range(12) if (7 * index) % 11 >= 5}
    judged = [index for index in range(12) if index % 5 != 4 and index != 1]
    german = [index for index in judged if index % 3 == 0]
    english = [index for index in judged if index % 3]
    found = language_statistics(told, shards)
    assert found["languages"] == {
        "en": {
            "texts": 2 * (len(english) + 1),
            "in": 2 * len(english),
            "kept": 2 * len(kept & set(english)),
            "kept_out": 2,
        },
        "de": {
            "texts": 2 * len(german),
            "in": 2 * len(german),
            "kept": 2 * len(kept & set(german)),
            "kept_out": 0,
        },
    }
    assert list(found["languages"]) == ["en", "de"]


def test_of_many_shards_some_are_looked_at(told: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(languages, "MOST_SHARDS", 2)
    assert language_statistics(told, write_snapshot(told).shards)["languages_of_shards"] == 2
