"""Which kind of input lies in a folder: tars, pictures or Parquet, and never one in silence.

img2dataset leaves a table of addresses beside each tar or folder of pictures: no input.
"""

from pathlib import PurePosixPath

import fsspec

from shards.inputs.finding.look import Look
from shards.inputs.names import stem
from shards.inputs.shard import InputError, Kind
from shards.inputs.tables.columns import holds_pictures

_TABLES_LOOKED_AT = 20
_WORDS = {  # of one, and of several
    "tar": ("tar", "tars"),
    "folder": ("loose picture", "loose pictures"),
    "parquet": ("Parquet file with pictures", "Parquet files with pictures"),
}


def kind_in(fs: fsspec.AbstractFileSystem, look: Look, pattern: str, wanted: Kind | None) -> Kind:
    """Tell the kind of what was found; InputError for several, until `wanted` says which."""
    counts: dict[Kind, int] = {
        "tar": len(look.outside_runs(look.tars)[0]),
        "folder": look.count(look.pictures),
        "parquet": 0,
    }
    tables = [entry.path for entry in look.outside_runs(look.tables)[0]]
    if counts["tar"] or counts["folder"] or look.metadata:
        beside = {stem(entry.path) for entry in look.tars} | set(look.folders)
        others = [path for path in tables if str(PurePosixPath(path).with_suffix("")) not in beside]
        if any(holds_pictures(fs, path) for path in others[:_TABLES_LOOKED_AT]):
            counts["parquet"] = len(others)
    else:
        counts["parquet"] = len(tables)
    if not any(counts.values()) and (look.metadata or look.count(look.foreign)):
        counts["folder"] = look.count(look.foreign) + len(look.metadata)
    there = [kind for kind, count in counts.items() if count]
    if wanted in there:
        return wanted
    if wanted is not None and there:
        raise InputError(f"{pattern!r}: input.kind is {wanted}; found {_said(counts)}")
    if len(there) > 1:
        raise InputError(
            f"{pattern!r} holds {_said(counts)}; name those that are meant by a pattern, such as "
            f"'*.tar', or set input.kind to {' or '.join(there)}"
        )
    return there[0] if there else "tar"


def _said(counts: dict[Kind, int]) -> str:
    return " and ".join(
        f"{count:,} {_WORDS[kind][count > 1]}" for kind, count in counts.items() if count
    )
