"""Rounds and trials as tables, and what one line says of a stage."""

from types import SimpleNamespace
from typing import Any

import pytest
from rich.cells import cell_len

from flows.cli.display.rounds import print_rounds, print_trial, stage_line

ITM = {"tr@1": 0.5, "ir@1": 0.25}
CLEAN = {
    "samples_in": 1200,
    "kept": 1000,
    "texts": {"web": {"in": 1200, "kept": 300}, "synthetic": {"in": 1000, "kept": 990}},
}
EVALUATE = {"retrieval": {"itm": ITM}, "captions": {"cider": None}}


@pytest.mark.parametrize(
    ("stage", "entry", "line"),
    [
        ("clean", CLEAN, "1,000 of 1,200 samples kept; texts kept: web 25.0 %, synthetic 99.0 %"),
        ("evaluate", EVALUATE, "TR@1 0.500, IR@1 0.250, CIDEr none"),
        (
            "pretrain",
            {"steps": 4000, "samples": 128000, "last_numbers": {"loss": 2.0}},
            "4,000 steps, 128,000 samples, loss 2.000",
        ),
        ("filter", {"steps": 1, "samples": 2, "last_numbers": {}}, "1 steps, 2 samples, loss none"),
    ],
)
def test_a_stage_is_one_line(stage: Any, entry: dict[str, Any], line: str) -> None:
    assert stage_line(stage, entry) == line


def rows(out: str) -> list[list[str]]:
    assert all(cell_len(line) <= 80 for line in out.splitlines())
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines()]


@pytest.mark.parametrize("ended", [None, "rounds"])
def test_rounds_of_the_ledger(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, ended: str | None
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    whole = {"round": 1, "gate": {"measure": 0.375}, "evaluate": EVALUATE, "clean": CLEAN}
    begun = {"round": 2, "clean": CLEAN}
    ledger: Any = SimpleNamespace(rounds=[whole, begun], best=1, ended=ended)
    print_rounds(ledger)
    said = capsys.readouterr()
    shown, other = (said.out, said.err) if ended else (said.err, said.out)
    assert other == ""  # only the end is a result
    table = [row for row in rows(shown) if row]
    assert table == [["1 (best)", "0.375", "0.500", "0.250", "none", "25.0 %", "99.0 %"]]


def test_views_of_a_trial(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    view = {"retrieval": {"itm": ITM}, "measure": 0.375, "samples": 12000}
    long = "/runs/" + "x" * 90
    print_trial([view | {"run": "a[b]", "view": None}, view | {"run": long, "view": "strict"}])
    table = [row for row in rows(capsys.readouterr().out) if row]
    assert table[0] == ["a[b]:own", "0.375", "0.500", "0.250", "12,000"]
    assert "".join(row[0] for row in table[1:]) == f"{long}:strict"  # folded, never cut
