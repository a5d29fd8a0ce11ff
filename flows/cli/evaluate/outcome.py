"""What an evaluation came to: numbers, what was left out of them, or nothing at all."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pipeline.printable import visible
from shards.errors import UsageError

if TYPE_CHECKING:
    from shards.training.left_out import LeftOut

_ADVICE = {
    "image_missing": "name the folder that the pictures' names start from: --images FOLDER",
    "text_missing": "give a file or tars with texts: there is nothing to compare with",
    "label_missing": "name the sidecar's key that holds true or false: --label KEY",
    "video_missing": "name the folder of the videos: --videos FOLDER",
    "format_not_allowed": "convert the pictures to JPEG, PNG, WebP or GIF",
}


INVERTED_BELOW = 0.4  # area under the ROC curve; by chance it is a half


class NothingEvaluated(UsageError):  # noqa: N818 - reads as what happened
    """Not one row could be used."""


def check_outcome(numbers: Mapping[str, Any], counted: str, where: str) -> None:
    """Tell what was left out of the `counted`; raise NothingEvaluated where that is all."""
    left_out: LeftOut = numbers["left_out"]
    total = left_out.total()
    if numbers[counted]:
        if total:
            typer.echo(f"capfilt: left out of {where}: {visible(str(left_out))}", err=True)
        return
    reason = left_out.most_common(1)[0][0] if total else None
    advice = _ADVICE.get(str(reason), "mend what is told here, or give other data")
    raise NothingEvaluated(
        f"{where}: 0 of {total:,} rows can be used, so there is nothing to evaluate. "
        f"Left out: {left_out}. What to do: {advice}"
    )


def check_direction(numbers: Mapping[str, Any]) -> None:
    """Warn where a filter ranks wrong texts above right ones: its labels say the opposite."""
    auc = numbers["roc_auc"]
    if auc is not None and auc < INVERTED_BELOW:
        typer.echo(
            f"capfilt: roc_auc is {auc:.3f}: wrong texts have higher scores than right ones. Is "
            "the label true where the text is wrong?",
            err=True,
        )


def keep(result: Path | None, written: Sequence[Mapping[str, Any]]) -> None:
    """Write what was answered, whole or not at all."""
    from shards.files.durable import write_whole

    if result is not None:
        write_whole(result, json.dumps(list(written)))
