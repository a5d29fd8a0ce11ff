"""The ledger of rounds, `rounds.json`: what each stage came to, and what the gate said of it.

A stage is done if its own result says so; its entry is read from there, each time anew. So the
ledger says after any number of kills what it would have said without them. What depends on when
and where the work was done stands apart, under `cost`, and that alone is the ledger's own.
"""

import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.rounds.names import STAGES, Ending, Stage
from flows.training.run import read_result
from flows.training.worker import last_numbers
from models.blip.config import Dtype
from shards.errors import UsageError
from shards.run.attempt import read_quarantined
from shards.run.run import Run, as_json, check_identity, fingerprint
from shards.run.segment import read_committed
from shards.run.snapshot import newest_snapshot_id
from shards.statistics import run_statistics
from shards.store import Store

LEDGER = "rounds.json"
LEDGER_VERSION = 1
EVALUATION = "evaluation.json"

Entry = dict[str, Any]


class LedgerError(UsageError):
    """A ledger that cannot be read."""


class Ledger:
    """The rounds in one folder, as far as they are; written whenever a stage begins or ends."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Open a folder's ledger, or begin it; RunMismatch if it is that of another recipe."""
        self.folder = folder
        self.rounds: list[dict[str, Any]] = []
        self.ended: Ending | None = None
        self._store = Store(str(folder))
        self._identity = as_json(identity)
        head = {"fingerprint": fingerprint(self._identity), "identity": self._identity}
        self._store.create(LEDGER, _json({"ledger_version": LEDGER_VERSION, **head, "cost": {}}))
        recorded = self._read()
        check_identity(str(folder), "rounds", recorded, head)
        self._cost: dict[str, dict[str, list[Entry]]] = recorded["cost"]

    @property
    def dtype(self) -> Dtype:
        """The precision that all stages run in."""
        dtype: Dtype = self._identity["dtype"]
        return dtype

    @property
    def best(self) -> int | None:
        """The round with the highest measure of the gate; of equal ones the first."""
        passed = [entry["round"] for entry in self.rounds if entry.get("gate", {}).get("improved")]
        return passed[-1] if passed else None

    def refresh(self) -> None:
        """Read anew what another process may have written since."""
        self._cost = self._read()["cost"]

    def begin(self, number: int, stage: Stage) -> None:
        """Write down that a stage is begun, or begun again."""
        attempts = self._cost.setdefault(f"round-{number}", {}).setdefault(stage, [])
        attempts.append({"began": _now(), "ended": None, "seconds": None, "host": platform.node()})
        self.write()

    def end(self, number: int, stage: Stage, entry: Entry) -> None:
        """Write down what a stage came to; after the last one the gate judges the round."""
        attempts = self._cost.get(f"round-{number}", {}).get(stage, [])
        if attempts and attempts[-1]["ended"] is None:
            last = attempts[-1]
            last["ended"] = _now()
            took = datetime.fromisoformat(last["ended"]) - datetime.fromisoformat(last["began"])
            last["seconds"] = round(took.total_seconds(), 1)
        if len(self.rounds) < number:
            self.rounds.append({"round": number})
        self.rounds[number - 1][stage] = entry
        if stage == STAGES[-1]:
            earlier = [entry["gate"]["measure"] for entry in self.rounds[: number - 1]]
            self.rounds[number - 1]["gate"] = judge_round(entry, earlier)
        self.write()

    def as_dict(self) -> dict[str, Any]:
        """Return what stands in `rounds.json`."""
        return {
            "ledger_version": LEDGER_VERSION,
            "fingerprint": fingerprint(self._identity),
            "identity": self._identity,
            "rounds": self.rounds,
            "best": self.best,
            "ended": self.ended,
            "cost": self._cost,
        }

    def write(self) -> None:
        """Replace `rounds.json` in one step."""
        self._store.put(LEDGER, _json(self.as_dict()))

    def _read(self) -> dict[str, Any]:
        recorded = read_ledger(self.folder)
        if recorded is None:
            raise LedgerError(
                f"{self.folder / LEDGER} is gone, and was there a moment ago. Run the same command "
                "again: it is written anew from the stages' own results"
            )
        return recorded


def read_ledger(folder: Path) -> dict[str, Any] | None:
    """Read the ledger of a folder, or None if there is none."""
    path = folder / LEDGER
    try:
        recorded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = int(recorded["ledger_version"])
        recorded["fingerprint"], recorded["identity"]["dtype"], recorded["cost"]
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise LedgerError(
            f"{path} cannot be read: {error!r}. Delete it and run the same command again: it is "
            "written anew from the stages' own results, and only the times are lost"
        ) from None
    if version > LEDGER_VERSION:
        raise LedgerError(
            f"{path} has version {version}, newer than {LEDGER_VERSION}, the newest this capfilt "
            "reads; update capfilt"
        )
    return recorded


def judge_round(evaluation: Entry, earlier: Sequence[float]) -> Entry:
    """Compare a round's retrieval with the best before it; the first one always improves.

    Captions have no say: a captioner may learn to please its metric while the data gets worse.
    """
    measure = gate_measure(evaluation["retrieval"])
    best = max(earlier, default=None)
    return {"measure": measure, "best_before": best, "improved": best is None or measure > best}


def gate_measure(retrieval: Entry) -> float:
    """Compute the mean of TR@1 and IR@1, ITM having put the best of ITC in order."""
    itm = retrieval["itm"]
    return float(itm["tr@1"] + itm["ir@1"]) / 2


def stage_folder(folder: Path, number: int, stage: Stage) -> Path:
    """Name the folder of a stage; `evaluate` has a file in the round's."""
    name = {"clean": "run", "evaluate": ""}.get(stage, stage)
    return folder / f"round-{number}" / name


def read_stage(folder: Path, number: int, stage: Stage) -> Entry | None:
    """Read what a stage came to, or None while it is not done."""
    path = stage_folder(folder, number, stage)
    if stage == "clean":
        return read_cleaning(path)
    return read_evaluation(path) if stage == "evaluate" else read_training(path)


def read_training(folder: Path) -> Entry | None:
    """Read what a training came to, but for when, where, and what was said on the way."""
    result = read_result(folder)
    if result is None:
        return None
    claim = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    last = last_numbers(folder)
    names = ("steps", "samples", "epochs", "left_out", "sources")
    checkpoints = {role: trained["digest"] for role, trained in result["checkpoints"].items()}
    return {
        "fingerprint": claim["fingerprint"],
        "checkpoints": checkpoints,
        **{name: result[name] for name in names},
        "last_numbers": {name: value for name, value in last.items() if name != "samples_per_s"},
    }


def read_cleaning(folder: Path) -> Entry | None:
    """Read what a finished cleaning came to."""
    if not all((folder / name).is_file() for name in ("input.parquet", "snapshot.json")):
        return None
    run = Run.open(str(folder))
    done = read_committed(run).commits.keys() | read_quarantined(run).keys()
    if len(done) < len(run.inputs) or not (folder / "clean.txt").is_file():
        return None
    statistics = run_statistics(run)
    del statistics["histograms"], statistics["highest_itm"]
    for texts in statistics["texts"].values():
        texts["share"] = texts["kept"] / texts["in"] if texts["in"] else None
    return {"fingerprint": run.fingerprint, "snapshot": newest_snapshot_id(run), **statistics}


def read_evaluation(folder: Path) -> Entry | None:
    """Read what an evaluation came to."""
    path = folder / EVALUATION
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
