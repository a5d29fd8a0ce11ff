"""What an occasion came to, in the few words and numbers that Prefect's page and events tell."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from pathlib import Path

    from flows.rounds.ledger import Ledger
    from flows.stages.clean import RunResult


class Summary(TypedDict):
    """The exit code of the command, a line for people, the folder, and numbers by their names."""

    exit_code: int
    message: str
    output: str
    numbers: Mapping[str, Any]


def of_cleaning(result: "RunResult") -> Summary:
    """Sum up a cleaning."""
    statistics = result.statistics
    names = ("samples_in", "kept", "filtered", "rejected")
    numbers = {name: statistics[name] for name in names}
    for origin, texts in statistics["texts"].items():
        numbers[f"{origin} texts"] = texts["in"]
        numbers[f"{origin} texts kept"] = texts["kept"]
    numbers |= {f"shards {name}": count for name, count in statistics["shards"].items()}
    kept = f"{numbers['kept']:,} of {numbers['samples_in']:,} samples kept"
    message = f"{result.left}; {kept} so far" if result.pending_here else kept
    return Summary(
        exit_code=result.exit_code, message=message, output=result.run_url, numbers=numbers
    )


def of_training(result: Mapping[str, Any], folder: "Path") -> Summary:
    """Sum up a training."""
    names = ("steps", "samples", "epochs", "seconds")
    numbers = {name: result[name] for name in names}
    for role, checkpoint in result["checkpoints"].items():
        numbers[role] = str(folder / checkpoint["folder"])
    message = f"{result['steps']:,} steps, {result['samples']:,} samples"
    return Summary(exit_code=0, message=message, output=str(folder), numbers=numbers)


def of_rounds(ledger: "Ledger") -> Summary:
    """Sum up rounds; those that wait for a person, or that the gate stopped, are no failure."""
    from flows.stages.bootstrap import exit_code

    why = {"gate": "the gate stopped them", "approval": "a person is waited for"}
    ended = why.get(ledger.ended or "", "all done")
    numbers: dict[str, Any] = {"rounds": len(ledger.rounds), "best": ledger.best}
    for entry in ledger.rounds:
        if "gate" in entry:
            numbers[f"round {entry['round']}: gate"] = round(entry["gate"]["measure"], 4)
    return Summary(
        exit_code=exit_code(ledger),
        message=f"{len(ledger.rounds)} rounds, the best is {ledger.best}; {ended}",
        output=str(ledger.folder),
        numbers=numbers,
    )


def of_view(judged: Mapping[str, Any], output: str) -> Summary:
    """Sum up a view beside the run's own decisions."""
    numbers = {name: judged[name] for name in ("snapshot", "view")}
    message = f"view {judged['view']}" + ("" if judged["new"] else ", which stood there already")
    return Summary(exit_code=0, message=message, output=output, numbers=numbers)
