"""What a view leaves out: samples, whatever their texts, and the groups that they were found in.

Nothing is erased: the list is a file beside the view, named by its record.
"""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from shards.errors import DamagedFile
from shards.run.run import Run
from shards.schema import GROUPS, check_schema, open_parquet, read_bytes

# the run's own copies of lists, which its recipe named
SKIP_NAME, BLOCK_NAME = "skip.parquet", "block_hashes.txt"


class Exclusion(BaseModel):
    """Samples that a view leaves out: the file `groups` lists them.

    `asked` says what was asked for; `base` is the view whose decisions stand for the others, None
    for the run's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    groups: str
    groups_sha256: str
    samples: int
    base: str | None = None
    asked: dict[str, Any] = {}


def skip_list_length(run: Run) -> int:
    """Count the samples that a run's skip-list names; 0 without one. Raises DamagedFile."""
    if "skip" not in run.identity or not run.store.exists(SKIP_NAME):
        return 0
    with (
        run.store.open(SKIP_NAME) as source,
        open_parquet(source, run.store.url(SKIP_NAME)) as file,
    ):
        return int(file.metadata.num_rows)


def read_groups(run: Run, exclusion: Exclusion | None) -> pa.Table:
    """Read the groups of what a view leaves out, none where that is nothing; raises DamagedFile."""
    if exclusion is None:
        return GROUPS.empty_table()
    where = run.store.url(exclusion.groups)
    try:
        data = run.store.read(exclusion.groups)
    except FileNotFoundError as error:
        raise DamagedFile(
            where, "the list of what the view leaves out", "none: it is gone"
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != exclusion.groups_sha256:
        raise DamagedFile(where, f"sha256 {exclusion.groups_sha256}", digest)
    table = read_bytes(data, where)
    check_schema(table.schema, GROUPS, where)
    return table


def left_out_of(groups: pa.Table) -> pa.Table:
    """Return the rows of the samples that a view leaves out, of all that its groups name."""
    ours = pc.and_(pc.is_null(groups["run"]), pc.is_valid(groups["reason"]))
    return groups.filter(ours)


def left_out_by_shard(groups: pa.Table) -> dict[str, pa.Table]:
    """Return the index and reason of each sample that a view leaves out, by shard."""
    rows = left_out_of(groups).select(["shard", "index", "reason"]).sort_by("shard")
    names = rows["shard"].combine_chunks().dictionary_encode()
    starts = np.searchsorted(names.indices.to_numpy(), np.arange(len(names.dictionary) + 1))
    return {
        shard: rows.slice(starts[number], starts[number + 1] - starts[number])
        for number, shard in enumerate(names.dictionary.to_pylist())
    }
