"""What a command is asked to do, said as the parameters of its flow: to be read, not to be done."""

from collections.abc import Sequence
from pathlib import Path

from shards.files.home import expand_home

MOST_SHOWN = 100  # of a list: Prefect takes no parameters of more than 512 KiB


def place(path: str) -> str:
    """Say where a path is, whatever folder it was named from; a URL stays as it is."""
    return path if "://" in path else str(Path(expand_home(path)).absolute())


def shortened(items: Sequence[str]) -> list[str]:
    """Cut a long list, and say so."""
    more = len(items) - MOST_SHOWN
    return [*items[:MOST_SHOWN], f"and {more:,} more"] if more > 0 else list(items)
