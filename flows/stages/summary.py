"""What an occasion came to, in the few words and numbers that Prefect's page and events tell."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from pipeline.printable import number_of

if TYPE_CHECKING:
    from pathlib import Path

    from flows.rounds.ledger import Ledger
    from flows.stages.clean import RunResult
    from flows.stages.download import DownloadResult


class Summary(TypedDict):
    """The exit code of the command, a line for people, the folder, and numbers by their names.

    `run` is the run folder that a report can be made of, empty where there is none.
    """

    exit_code: int
    message: str
    output: str
    run: str
    numbers: Mapping[str, Any]


def of_cleaning(result: "RunResult", new: bool = True) -> Summary:
    """Sum up a cleaning; `new` says that there was something left to do."""
    statistics = result.statistics
    names = ("samples_in", "kept", "filtered", "rejected")
    numbers = {name: statistics[name] for name in names}
    for origin, texts in statistics["texts"].items():
        numbers[f"{origin} texts"] = texts["in"]
        numbers[f"{origin} texts kept"] = texts["kept"]
    numbers |= {f"shards {name}": count for name, count in statistics["shards"].items()}
    kept = f"{numbers['kept']:,} of {number_of(numbers['samples_in'], 'sample')} kept"
    message = f"{result.left}; {kept} so far" if result.pending_here else kept
    return Summary(
        exit_code=result.exit_code,
        message=message if new else f"nothing was left to do: {message}",
        output=result.run_url,
        run=result.run_url,
        numbers=numbers,
    )


def of_download(result: "DownloadResult") -> Summary:
    """Sum up a download; rows that failed, each with a reason, are no failure of it."""
    statistics = result.statistics
    numbers = {name: statistics[name] for name in ("rows", "ok", "failed", "pending", "bytes")}
    numbers |= statistics["failed_by_reason"]
    done = f"{numbers['ok']:,} of {number_of(numbers['rows'], 'row')} fetched"
    return Summary(
        exit_code=result.exit_code,
        message=f"{result.left}; {done} so far" if result.exit_code else done,
        output=result.url,
        run="",
        numbers=numbers,
    )


def of_training(result: Mapping[str, Any], folder: "Path") -> Summary:
    """Sum up a training."""
    names = ("steps", "samples", "epochs", "seconds")
    numbers = {name: result[name] for name in names}
    for role, checkpoint in result["checkpoints"].items():
        numbers[role] = str(folder / checkpoint["folder"])
    message = f"{number_of(result['steps'], 'step')}, {number_of(result['samples'], 'sample')}"
    return Summary(exit_code=0, message=message, output=str(folder), run="", numbers=numbers)


def of_rounds(ledger: "Ledger") -> Summary:
    """Sum up rounds; those that wait for a person, or that the gate stopped, are no failure."""
    from flows.rounds.ledger import stage_folder
    from flows.stages.rounds.bootstrap import exit_code

    last = len(ledger.rounds)
    numbers: dict[str, Any] = {"rounds": last, "best": ledger.best}
    for entry in ledger.rounds:
        if "gate" in entry:
            numbers[f"round {entry['round']}: gate"] = round(entry["gate"]["measure"], 4)
    return Summary(
        exit_code=exit_code(ledger),
        message=f"{last} round{'s' * (last != 1)}, the best is {ledger.best}; {_why_over(ledger)}",
        output=str(ledger.folder),
        run=str(stage_folder(ledger.folder, ledger.best or 1, "clean")),
        numbers=numbers,
    )


def _why_over(ledger: "Ledger") -> str:
    from flows.rounds.approval import read_answer

    if ledger.ended == "gate":
        return "the gate stopped them"
    if ledger.ended != "approval":
        return "all done"
    answer = read_answer(ledger.folder, len(ledger.rounds))
    if answer is None or answer.approve:
        return "a person is waited for"
    return f"ended by {answer.by}: {answer.reason or 'no reason given'}"


def of_view(judged: Mapping[str, Any], output: str) -> Summary:
    """Sum up a view beside the run's own decisions."""
    numbers = {name: judged[name] for name in ("snapshot", "view")}
    message = f"view {judged['view']}" + ("" if judged["new"] else ", which stood there already")
    return Summary(exit_code=0, message=message, output=output, run=output, numbers=numbers)
