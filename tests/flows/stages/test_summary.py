"""What an occasion came to, in few words and numbers."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.engines.engine import ShardFailed
from flows.rounds.approval import Answer, write_answer
from flows.stages.clean import RunResult
from flows.stages.download import DownloadResult
from flows.stages.summary import of_cleaning, of_download, of_rounds, of_training, of_view
from shards.inputs.shard import InputShard

STATISTICS: dict[str, Any] = {
    "samples_in": 1200,
    "kept": 1000,
    "filtered": 150,
    "rejected": 50,
    "texts": {"web": {"in": 1150, "kept": 300}},
    "shards": {"total": 4, "committed": 3, "damaged": 0, "quarantined": 0, "pending": 1},
}


def test_a_cleaning_that_is_done() -> None:
    done = of_cleaning(RunResult("/run", STATISTICS, (), (), 0))
    assert (done["exit_code"], done["message"]) == (0, "1,000 of 1,200 samples kept")
    assert done["output"] == "/run"
    assert done["numbers"]["rejected"] == 50
    assert done["numbers"]["web texts kept"] == 300
    assert done["numbers"]["shards committed"] == 3


def test_a_cleaning_that_is_not_done_says_why_and_what_to_do() -> None:
    failed = ShardFailed(InputShard("/in/3.tar", "3", 1, None, 0.0), "the network is gone")
    left = of_cleaning(RunResult("/run", STATISTICS, (failed,), (), 1))
    assert left["exit_code"] == 1
    assert "1 shard still pending; 3: the network is gone. Run the same" in left["message"]
    assert left["message"].endswith("1,000 of 1,200 samples kept so far")


def test_a_training() -> None:
    result = {
        "steps": 4000,
        "samples": 128_000,
        "epochs": 2.5,
        "seconds": 9.5,
        "checkpoints": {"model": {"folder": "model", "digest": "x"}},
    }
    done = of_training(result, Path("/trained"))
    assert (done["exit_code"], done["message"]) == (0, "4,000 steps, 128,000 samples")
    assert done["numbers"]["epochs"] == 2.5
    assert done["numbers"]["model"] == "/trained/model"  # where a finetuning starts from


@pytest.mark.parametrize(
    ("ended", "why"),
    [
        ("rounds", "all done"),
        ("gate", "the gate stopped them"),
        ("approval", "a person is waited for"),
    ],
)
@pytest.mark.parametrize(("damaged", "code"), [(0, 0), (1, 3)])
def test_rounds(ended: str, why: str, damaged: int, code: int, tmp_path: Path) -> None:
    shards = {"damaged": damaged, "quarantined": 0}
    rounds = [{"round": 1, "clean": {"shards": shards}, "gate": {"measure": 0.123456}}]
    ledger: Any = SimpleNamespace(rounds=rounds, best=1, ended=ended, folder=tmp_path)
    done = of_rounds(ledger)
    assert done["exit_code"] == code
    assert done["message"] == f"1 round, the best is 1; {why}"
    assert done["numbers"] == {"rounds": 1, "best": 1, "round 1: gate": 0.1235}
    assert done["run"] == str(tmp_path / "round-1" / "run")


def test_rounds_that_a_person_ended_say_who_and_why(tmp_path: Path) -> None:
    rounds = [{"round": number, "gate": {"measure": 0.5}} for number in (1, 2)]
    write_answer(tmp_path, 2, Answer.now(False, "somebody", "worse"))
    ledger: Any = SimpleNamespace(rounds=rounds, best=1, ended="approval", folder=tmp_path)
    assert of_rounds(ledger)["message"] == "2 rounds, the best is 1; ended by somebody: worse"


@pytest.mark.parametrize(
    ("new", "message"),
    [(True, "view strict"), (False, "view strict, which stood there already")],
)
def test_a_view(new: bool, message: str) -> None:
    judged = {"view": "strict", "snapshot": "abc", "new": new, "rules": {}}
    done = of_view(judged, "/run")
    assert (done["exit_code"], done["message"], done["output"]) == (0, message, "/run")
    assert done["numbers"] == {"snapshot": "abc", "view": "strict"}


def test_a_download_whose_rows_all_ended_is_complete_whatever_failed() -> None:
    statistics: dict[str, Any] = {
        "rows": 12,
        "ok": 9,
        "failed": 3,
        "failed_by_reason": {"timeout": 3},
        "pending": 0,
        "bytes": 5,
        "parts": {"total": 2, "done": 2, "pending": 0},
    }
    done = of_download(DownloadResult("/out", statistics, ()))
    assert (done["exit_code"], done["message"]) == (0, "9 of 12 rows fetched")
    assert done["numbers"]["timeout"] == 3
    left = statistics | {"pending": 4, "parts": {"total": 2, "done": 1, "pending": 1}}
    assert of_download(DownloadResult("/out", left, ()))["exit_code"] == 1
