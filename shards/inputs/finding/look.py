"""A look below a folder, or at what matches a pattern: tars, tables and pictures, told apart."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import fsspec

from shards.files.walk import Entry, below, walk
from shards.inputs.names import FOREIGN_EXTENSIONS, IMAGE_EXTENSIONS, is_tar
from shards.inputs.shard import InputError

RUN, _RECIPE = "run.json", "recipe.yaml"  # the first marks a run, whose tars are results
_OTHERWISE_COMPRESSED = re.compile(
    r"\.(tar\.(bz2|xz|zst|zstd|lz4|lzma|z|br)|tbz2?|txz|tzst|zip|7z|rar)$", re.IGNORECASE
)
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")  # of texts, beside pictures
_NAMED_AT_MOST = 5


@dataclass(slots=True)
class Look:
    """What is found; of pictures, and of those that are not read, how many by folder."""

    tars: list[Entry] = field(default_factory=list)
    tables: list[Entry] = field(default_factory=list)  # Parquet files
    metadata: list[str] = field(default_factory=list)  # tables of texts
    pictures: Counter[str] = field(default_factory=Counter)
    foreign: Counter[str] = field(default_factory=Counter)
    folders: list[str] = field(default_factory=list)
    marked: dict[str, set[str]] = field(default_factory=lambda: {RUN: set(), _RECIPE: set()})
    compressed: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)  # by their endings, tables among them

    @property
    def runs(self) -> set[str]:
        """The folders of runs; `capfilt try` has its run in one beside the sample's tars."""
        runs, recipes = self.marked[RUN], self.marked[_RECIPE]
        return runs | ({run.removesuffix("/run") for run in runs} & recipes)

    def outside_runs(self, entries: Iterable[Entry]) -> tuple[list[Entry], list[str]]:
        """Return the entries that no run holds, and the runs that hold the others."""
        left, runs, known = [], set[str](), self.runs
        for entry in entries:
            above = run_above(entry.path, known)
            if above is None:
                left.append(entry)
            else:
                runs.add(above)
        return left, sorted(runs)

    def count(self, pictures: Counter[str]) -> int:
        """Count pictures by folder, but for those in runs."""
        known = self.runs
        return sum(
            number for folder, number in pictures.items() if not run_above(f"{folder}/.", known)
        )


def look_below(
    fs: fsspec.AbstractFileSystem,
    top: str,
    pattern: str,
    depth: int | None = None,
    matches: Callable[[str], bool] = bool,
) -> Look:
    """Look at what lies below a folder; InputError where that cannot be read."""
    look = Look()
    try:
        for entry in walk(fs, top, depth):
            name = below(top, entry.path).rstrip("/")
            folder, _, last = entry.path.rpartition("/")
            if "/" in name and last in look.marked:
                look.marked[last].add(folder)
            if matches(name):
                _put(look, entry, name)
    except FileNotFoundError:
        pass  # nothing is found there
    except OSError as error:
        raise InputError(f"{pattern!r}: {top} cannot be read: {error.strerror or error}") from error
    return look


def run_above(path: str, runs: set[str]) -> str | None:
    """Return the run in which something lies, if any."""
    return next((parent for parent in parents(path) if parent in runs), None) if runs else None


def parents(path: str) -> list[str]:
    """List the folders above a path."""
    return [str(parent) for parent in PurePosixPath(path).parents]


def some(names: list[str]) -> str:
    """Name a few, and count the others."""
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return f"{', '.join(names[:_NAMED_AT_MOST])}{more}"


def _put(look: Look, entry: Entry, name: str) -> None:
    if entry.is_folder:
        look.folders.append(entry.path.rstrip("/"))
        return
    if is_tar(name):
        look.tars.append(entry)
        return
    if _OTHERWISE_COMPRESSED.search(name):
        look.compressed.append(entry.path)
    ending = PurePosixPath(name).suffix.lower()
    look.others[ending or "without an ending"] += 1
    folder, _, last = entry.path.rpartition("/")
    if last in METADATA:
        look.metadata.append(entry.path)
    elif ending == ".parquet":
        look.tables.append(entry)
    elif ending[1:] in IMAGE_EXTENSIONS:
        look.pictures[folder] += 1
    elif ending[1:] in FOREIGN_EXTENSIONS:
        look.foreign[folder] += 1
