"""What a view is judged by: the columns of a shard's texts that its rules name, in one table.

Columns of samples stand beside each of their texts. A score that a text does not have is null; one
that is not finite is NaN.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shards.run.data import read_data
from shards.run.run import Run
from shards.run.scoring.expression import SAMPLE_COLUMNS, TEXT_COLUMNS, Column
from shards.run.snapshot import SnapshotShard
from shards.schema import SAMPLES, TEXTS

Keys = NDArray[np.int64]


def read_facts(run: Run, shard: SnapshotShard, columns: Iterable[Column]) -> pa.Table:
    """Read `origin` and these columns, a row for each text, in their order.

    Scores of sets are read from the shard's files of scores (see `with_scores`).
    """
    wanted = {column.name: column for column in columns}
    of_texts = wanted.keys() & TEXT_COLUMNS.keys()
    of_samples = sorted(wanted.keys() & SAMPLE_COLUMNS.keys())
    of_sets = sorted(wanted.keys() - TEXT_COLUMNS.keys() - SAMPLE_COLUMNS.keys())
    needed = {"origin", *_stored(of_texts, TEXTS)}
    needed |= {"index", "text_no"} if of_samples or of_sets else set()
    texts = _read(run, shard, "texts", [name for name in TEXTS.names if name in needed])
    facts = {name: _column(name, texts) for name in sorted({"origin", *of_texts})}
    if of_samples:
        samples = _read(run, shard, "samples", sorted(_stored(of_samples, SAMPLES)))
        samples = samples.take(texts["index"])  # a sample's index is its row
        facts |= {name: _column(name, samples) for name in of_samples}
    if of_sets:
        facts |= _added_scores(run, shard, of_sets, keys_of(texts))
    return pa.table(facts)


def keys_of(table: pa.Table) -> Keys:
    """Return one number for each (index, text_no) of a shard, in the same order as these."""
    return table["index"].to_numpy().astype(np.int64) << 16 | table["text_no"].to_numpy()


def _added_scores(
    run: Run, shard: SnapshotShard, names: Sequence[str], keys: Keys
) -> dict[str, pa.Array]:
    """Read scores of sets, by SET.SCORE, for texts of these keys; null where there is none."""
    values = {name: np.zeros(len(keys), np.float32) for name in names}
    there = {name: np.zeros(len(keys), bool) for name in names}
    for file in shard.files:
        if file.table != "scores":
            continue
        rows = read_data(run, file, ["index", "text_no", "scorer", "name", "value"])
        full_names = pc.binary_join_element_wise(rows["scorer"], rows["name"], ".")
        for name in names:
            mine = rows.filter(pc.equal(full_names, name))
            row = np.searchsorted(keys, scored := keys_of(mine))
            known = (row < len(keys)) & (keys[np.minimum(row, len(keys) - 1)] == scored)
            values[name][row[known]] = mine["value"].to_numpy()[known]
            there[name][row[known]] = True
    return {name: pa.array(values[name], mask=~there[name]) for name in names}


def _read(run: Run, shard: SnapshotShard, table: str, columns: list[str]) -> pa.Table:
    return read_data(run, next(file for file in shard.files if file.table == table), columns)


def _stored(names: Iterable[str], schema: pa.Schema) -> set[str]:
    """Return the columns that these are made of."""
    return {part for name in names for part in _MADE_OF.get(name, (name,)) if part in schema.names}


def _column(name: str, table: pa.Table) -> pa.ChunkedArray:
    if name not in _MADE_OF:
        return table[name]
    return _MAKE[name](*(table[part] for part in _MADE_OF[name]))


def _aspect(width: pa.ChunkedArray, height: pa.ChunkedArray) -> pa.ChunkedArray:
    longer, shorter = pc.max_element_wise(width, height), pc.min_element_wise(width, height)
    return pc.divide(pc.cast(longer, pa.float64()), pc.cast(shorter, pa.float64()))


_MADE_OF = {
    "text_chars": ("text",),
    "text_words": ("text",),
    "pixels": ("width", "height"),
    "aspect": ("width", "height"),
}
_MAKE: dict[str, Callable[..., pa.ChunkedArray]] = {
    "text_chars": pc.utf8_length,
    "text_words": lambda text: pc.count_substring_regex(text, "[^ ]+"),
    "pixels": lambda width, height: pc.multiply(pc.cast(width, pa.int64()), height),
    "aspect": _aspect,
}
