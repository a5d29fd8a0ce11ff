"""Rounds and trials as tables, and what one line says of a stage."""

from types import SimpleNamespace
from typing import Any

import pytest
from rich.cells import cell_len

from flows.cli.display.rounds import print_rounds, print_trial

ITM = {"tr@1": 0.5, "ir@1": 0.25}
CLEAN = {
    "samples_in": 1200,
    "kept": 1000,
    "texts": {"web": {"in": 1200, "kept": 300}, "synthetic": {"in": 1000, "kept": 990}},
}
EVALUATE = {"retrieval": {"itm": ITM}, "captions": {"cider": None}}


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
