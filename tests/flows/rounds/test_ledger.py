"""The ledger: what the gate says of rounds, and what a ledger that is there already allows."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.rounds.ledger import (
    Ledger,
    LedgerError,
    gate_measure,
    judge_round,
    read_cleaning,
    read_evaluation,
    read_training,
)
from flows.rounds.names import STAGES
from shards.run.run import RunMismatch

IDENTITY = {"dtype": "fp32", "seed": 0}


def evaluation(tr: float, ir: float, cider: float = 0.0) -> dict[str, Any]:
    return {
        "retrieval": {"itc": {"tr@1": 1.0, "ir@1": 1.0}, "itm": {"tr@1": tr, "ir@1": ir}},
        "captions": {"cider": cider},
    }


def fill(ledger: Ledger, evaluations: list[dict[str, Any]]) -> None:
    for number, found in enumerate(evaluations, 1):
        for stage in STAGES:
            ledger.begin(number, stage)
            ledger.end(number, stage, found if stage == "evaluate" else {"steps": number})


def test_the_measure_is_the_mean_of_both_ways() -> None:
    assert gate_measure(evaluation(0.5, 0.25)["retrieval"]) == 0.375


@pytest.mark.parametrize(
    ("earlier", "best", "improved"),
    [([], None, True), ([0.3], 0.3, True), ([0.4], 0.4, False), ([0.6, 0.1], 0.6, False)],
)
def test_a_round_improves_if_it_is_better_than_all_before(
    earlier: list[float], best: float | None, improved: bool
) -> None:
    judged = judge_round(evaluation(0.4, 0.4), earlier)
    assert judged == {"measure": 0.4, "best_before": best, "improved": improved}


def test_better_captions_open_no_gate() -> None:
    assert not judge_round(evaluation(0.4, 0.4, cider=9.0), [0.5])["improved"]


def test_the_best_round_is_the_first_of_the_highest(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, IDENTITY)
    before = ledger.best
    fill(ledger, [evaluation(m, m) for m in (0.1, 0.5, 0.2, 0.5)])
    assert (before, ledger.best) == (None, 2)
    written = json.loads((tmp_path / "rounds.json").read_text())
    assert written["best"] == 2
    assert [entry["gate"]["improved"] for entry in written["rounds"]] == [True, True, False, False]


def test_all_attempts_at_a_stage_stand_under_cost(tmp_path: Path) -> None:
    Ledger(tmp_path, IDENTITY).begin(1, "pretrain")  # and then it was killed
    ledger = Ledger(tmp_path, IDENTITY)
    ledger.begin(1, "pretrain")
    ledger.end(1, "pretrain", {"steps": 3})
    written = json.loads((tmp_path / "rounds.json").read_text())
    first, second = written["cost"]["round-1"]["pretrain"]
    assert (first["ended"], first["seconds"]) == (None, None)
    assert second["began"] <= second["ended"]
    assert second["seconds"] >= 0
    assert written["rounds"] == [{"round": 1, "pretrain": {"steps": 3}}]


def test_another_recipe_is_refused_by_what_differs(tmp_path: Path) -> None:
    Ledger(tmp_path, IDENTITY)
    with pytest.raises(RunMismatch, match="seed: 0 -> 1"):
        Ledger(tmp_path, IDENTITY | {"seed": 1})
    Ledger(tmp_path, IDENTITY)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"ledger_version": 1}'])
def test_a_ledger_that_cannot_be_read_is_not_written_over(tmp_path: Path, content: str) -> None:
    path = tmp_path / "rounds.json"
    path.write_text(content)
    with pytest.raises(LedgerError, match="Delete it and run the same command again"):
        Ledger(tmp_path, IDENTITY)
    assert path.read_text() == content


def test_a_newer_ledger_is_refused(tmp_path: Path) -> None:
    Ledger(tmp_path, IDENTITY)
    path = tmp_path / "rounds.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ledger_version": 99}))
    with pytest.raises(LedgerError, match="version 99"):
        Ledger(tmp_path, IDENTITY)


def test_what_is_not_there_is_not_done(tmp_path: Path) -> None:
    assert read_training(tmp_path) is None
    assert read_cleaning(tmp_path) is None
    assert read_evaluation(tmp_path) is None
