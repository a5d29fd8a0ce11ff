"""Whether the round after one may begin: a person's answer, in the folder of the round."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from shards.errors import UsageError
from shards.store import Store

APPROVAL = "approved.json"


class Answer(NamedTuple):
    """What a person has answered, who or where, and why."""

    approve: bool
    by: str
    reason: str
    at: str

    @classmethod
    def now(cls, approve: bool, by: str, reason: str) -> "Answer":
        """Note what has just been answered."""
        return cls(approve, by, reason, datetime.now(UTC).isoformat("T", "milliseconds"))


def read_answer(folder: Path, number: int) -> Answer | None:
    """Read the answer after a round, or None while there is none.

    Raises UsageError where the file is no answer.
    """
    path = folder / f"round-{number}" / APPROVAL
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Answer(
            bool(found.get("approve", True)),
            str(found["by"]),
            str(found.get("reason", "")),
            str(found["at"]),
        )
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"{path} cannot be read ({error!r}); delete it, and answer again"
        ) from None


def write_answer(folder: Path, number: int, answer: Answer) -> None:
    """Write down the answer after a round; a later one takes its place."""
    record = {"round": number, **answer._asdict()}
    Store(str(folder)).put(f"round-{number}/{APPROVAL}", json.dumps(record, indent=2).encode())
