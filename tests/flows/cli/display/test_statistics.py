"""A run's numbers as tables."""

from typing import Any

import pytest
from rich.cells import cell_len

from flows.cli.display.statistics import print_statistics

REASONS = {f"reason_{n}": n for n in range(1, 8)}


@pytest.fixture
def statistics() -> dict[str, Any]:
    return {
        "kind": "clean",
        "samples_in": 1083,
        "kept": 1055,
        "filtered": 0,
        "rejected": 28,
        "rejected_by_reason": REASONS,
        "texts": {"web": {"in": 900, "kept": 0}, "[red]\x1b[2J": {"in": 1083, "kept": 1082}},
        "shards": {"total": 3, "committed": 3, "damaged": 0, "pending": 0},
        "text_reasons": {"text_empty": 183},
        "lacks_all_texts": False,
        "sidecar_fields": [],
        "rows_apart": 0,
        "damaged_shards": [],
        "highest_itm": {"web": 0.00871, "[red]\x1b[2J": 0.98},
    }


def test_counts_shares_and_the_commonest_reasons(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, statistics: dict[str, Any]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_statistics("/runs/[bold]first", statistics)
    out = capsys.readouterr().out
    cells = [[cell.strip() for cell in line.strip("│┃ ").split("│")] for line in out.splitlines()]
    assert ["samples_in", "1,083", "100.0 %"] in cells
    assert ["filtered", "0", "0.0 %"] in cells
    named = [row[0] for row in cells if row[0].startswith("reason_")]
    assert named == ["reason_7", "reason_6", "reason_5", "reason_4", "reason_3"]
    assert ["2 other reasons", "3", "0.3 %"] in cells
    assert ["web", "900", "0", "0.0 %"] in cells
    assert ["text_empty", "183"] in cells
    assert ["[red]␛[2J", "1,083", "1,082", "99.9 %"] in cells
    assert "shards: 3 total, 3 committed\n" in out
    assert out.endswith("output: /runs/[bold]first\n")
    assert all(cell_len(line) <= 80 for line in out.splitlines())


def test_an_origin_of_which_nothing_is_kept_is_told_with_its_best_score(
    capsys: pytest.CaptureFixture[str], statistics: dict[str, Any]
) -> None:
    told = "no web text passed: the best match of 900 is 0.0087. Is this the right filter"
    print_statistics("/runs/first", statistics)
    out = " ".join(capsys.readouterr().out.split())
    assert told in out
    assert out.count("text passed") == 1
    statistics["texts"]["web"]["kept"] = 1
    print_statistics("/runs/first", statistics)
    assert "text passed" not in capsys.readouterr().out


def test_members_that_could_not_be_joined_are_told_with_the_mend(
    capsys: pytest.CaptureFixture[str], statistics: dict[str, Any]
) -> None:
    print_statistics("/runs/first", statistics)
    assert "stand apart" not in capsys.readouterr().out
    statistics["rows_apart"] = 1200
    print_statistics("/runs/first", statistics)
    out = " ".join(capsys.readouterr().out.split())
    assert "1,200 rows (image_missing, text_missing, not_adjacent)" in out
    assert "members of a sample stand apart" in out
    assert "unpack .tar.gz, or sort the members by name" in out


def test_damaged_shards_are_named(
    capsys: pytest.CaptureFixture[str], statistics: dict[str, Any]
) -> None:
    statistics["shards"]["damaged"] = 7
    statistics["damaged_shards"] = [
        {"shard": f"[red]{n}", "state": "not_a_tar", "detail": "no header\x1b"} for n in range(7)
    ]
    print_statistics("/runs/first", statistics)
    out = capsys.readouterr().out
    assert "  damaged: [red]0: not_a_tar, no header␛\n" in out
    assert "[red]5" not in out
    assert "  and 2 more; capfilt report tells of all\n" in out


@pytest.mark.parametrize("lacks_all", [True, False])
def test_texts_that_may_stand_elsewhere_are_told(
    capsys: pytest.CaptureFixture[str], statistics: dict[str, Any], lacks_all: bool
) -> None:
    statistics |= {"lacks_all_texts": lacks_all, "sidecar_fields": ["alt", "url"]}
    print_statistics("/runs/first", statistics)
    out = capsys.readouterr().out
    assert ("warning: no sample has a web text." in out) == lacks_all
    assert ("sidecars have: alt, url." in out) == lacks_all


def test_web_texts_by_language_and_what_an_english_filter_did_to_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, statistics: dict[str, Any]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = ("en", "de", "ru", "und", "zh", "fr", "ar")
    counts = zip(names, (600, 100, 90, 50, 30, 20, 10), strict=True)
    statistics["languages"] = {
        name: {"texts": n, "in": n, "kept": n // 2 if name == "en" else 1, "kept_out": 0}
        for name, n in counts
    }
    statistics |= {"english_filter": True, "languages_of_shards": 2}
    print_statistics("/runs/first", statistics)
    out = capsys.readouterr().out
    cells = [[cell.strip() for cell in line.strip("│┃ ").split("│")] for line in out.splitlines()]
    assert ["en", "600", "300", "50.0 %"] in cells
    assert ["2 other languages", "30", "2", "6.7 %"] in cells
    assert not any(row[0] == "fr" for row in cells)
    assert "of 2 of 3 shards" in out
    assert all(cell_len(line) <= 80 for line in out.splitlines())
    told = " ".join(out.split())
    assert "warning: 250 of 900 web texts (27.8 %) are not English" in told
    assert "245 of these 250 are dropped" in told
    assert "--set screen.languages=en" in told
    statistics["english_filter"] = False
    print_statistics("/runs/first", statistics)
    assert "not English" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("skipped", "pending", "told"), [(0, 0, True), (24, 0, True), (25, 0, False), (0, 1, False)]
)
def test_a_skip_list_of_another_input_is_doubted(
    capsys: pytest.CaptureFixture[str],
    statistics: dict[str, Any],
    skipped: int,
    pending: int,
    told: bool,
) -> None:
    statistics |= {"to_skip": 50, "rejected_by_reason": {"skipped": skipped}}
    statistics["shards"]["pending"] = pending
    print_statistics("/run", statistics)
    line = f"the skip-list names 50 samples, and {skipped} were here to skip"
    assert (line in capsys.readouterr().out) is told


def test_a_table_without_rows_is_not_shown(
    capsys: pytest.CaptureFixture[str], statistics: dict[str, Any]
) -> None:
    kept_out = {"de": {"texts": 9, "in": 0, "kept": 0}}
    statistics |= {"texts": {}, "text_reasons": {}, "languages": kept_out, "highest_itm": {}}
    statistics |= {"english_filter": True, "languages_of_shards": 3}
    print_statistics("/run", statistics)
    out = capsys.readouterr().out
    assert "samples_in" in out
    assert "texts" not in out
