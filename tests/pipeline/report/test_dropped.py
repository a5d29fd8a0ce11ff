"""Texts of the gallery that were dropped: the words that sank them, or why there are none."""

from pathlib import Path

from pipeline.report.page import build_report
from shards.run.run import Run
from shards.run.view import open_view


def test_the_report_says_which_words_sank_the_match(explained_run: Run) -> None:
    said: list[str] = []
    page = build_report(explained_run, open_view(explained_run), said.append, 12, 4).decode()
    assert page.count('class="doubt"') >= 1
    assert "sunk by" in page
    assert 'alt="Where the filter looked for' in page
    assert "<script>alert(1)" not in page
    assert said.count("choosing samples") == 1
    assert sum(line.startswith("explaining") for line in said) <= 4
    assert (
        'class="doubt"'
        not in build_report(explained_run, open_view(explained_run), said.append, 12, 0).decode()
    )


def test_a_report_without_the_filter_says_so(explained_run: Run, explained: Path) -> None:
    hidden = explained / "hidden"
    (explained / "filter").rename(hidden)
    try:
        page = build_report(explained_run, open_view(explained_run), lambda _: None, 12, 4).decode()
    finally:
        hidden.rename(explained / "filter")
    assert "no words are explained" in page
    assert 'class="doubt"' not in page
