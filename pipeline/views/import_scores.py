"""Take scores from outside: a Parquet file whose rows name texts of a run, and how each scored.

A text is named by `shard`, `index` and `text_no`, by `shard`, `key` and `text_no`, or by `key` and
`text` (and `shard`, where a key stands in several). Every other column of numbers is a score. What
names no text, or one twice, is refused as a whole: half a set of scores would look like a whole.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from pipeline.printable import number_of, visible
from shards.errors import DamagedFile, UsageError
from shards.query.query import data_set, database, naming_damage
from shards.run.attempt import Ending, end_attempt, start_attempt
from shards.run.commit import Commit, read_commits
from shards.run.run import Run
from shards.run.scoring.score_set import ScoresError, ScoreSet, check_score_name
from shards.run.scoring.score_set import create_score_set as create
from shards.run.snapshot import as_snapshot_shard
from shards.schema import SCORES, open_parquet
from shards.store import Store
from shards.writer import commit_scores

if TYPE_CHECKING:
    import duckdb

_log = logging.getLogger(__name__)

# The ways to name a text, the surest first, and how the run's rows are found by each.
_KEYS = (("shard", "index", "text_no"), ("shard", "key", "text_no"), ("key", "text"))
_KEY_COLUMNS = {"shard", "index", "text_no", "key", "text"}
_LONG = {"name", "value"}  # rows as `scores` itself has them: one a score
# A number too large for float32 comes out as what is not finite.
_SCORE = """
SELECT number, {keys}, {name} AS name, coalesce(TRY_CAST({value} AS FLOAT), 'inf'::FLOAT) AS value
FROM (SELECT row_number() OVER () AS number, * FROM given) WHERE {value} IS NOT NULL
"""
_TEXTS = """
CREATE TEMP TABLE known AS SELECT shard, index, text_no, key, {text} AS text
FROM texts JOIN samples USING (shard, index)
"""
_PLACED = """
CREATE TEMP TABLE placed AS
SELECT number, known.shard, known.index, known.text_no, name, value
FROM scored JOIN known USING ({keys})
"""
_STRANGE = "SELECT * EXCLUDE (number, value) FROM scored WHERE number NOT IN (FROM matched)"
_TWICE = """
SELECT shard, index, text_no, name, count(*) AS times FROM placed GROUP BY ALL HAVING times > 1
ORDER BY min(number)
"""
_AMBIGUOUS = """
SELECT key, min(shard) AS first, max(shard) AS last FROM placed JOIN scored USING (number)
GROUP BY number, key HAVING count(DISTINCT (placed.shard, index)) > 1 ORDER BY number
"""
_NOT_FINITE = """
SELECT shard, index, text_no, name, value FROM placed WHERE NOT isfinite(value) ORDER BY number
"""
_SORTED = """
SELECT shard, index, text_no, ? AS scorer, name, value FROM placed
ORDER BY shard, index, text_no, name
"""
_ROWS_AT_A_TIME = 100_000


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of an import: the set, and how many texts have scores, of how many."""

    scores: ScoreSet
    texts: int
    of_texts: int
    not_finite: int
    new: bool


def import_scores(
    run: Run, url: str, name: str | None = None, report: Callable[[int, int], None] | None = None
) -> Imported:
    """Import a file's scores as a set of this name (default: the file's), or find it imported.

    Raises ScoresError where not every row fits the run, or the name holds other scores.
    """
    folder, _, file_name = url.rpartition("/")
    store = Store(folder or ("/" if url.startswith("/") else "."))
    name = name or _name_of(file_name)
    check_score_name(name)
    with _opened(store, file_name) as rows:
        columns = _Columns.of(rows.schema, store.url(file_name), name)
        commits = read_commits(run)
        shards = [as_snapshot_shard(done) for done in commits.values()]
        tables = {table: data_set(run, shards, table) for table in ("samples", "texts")}
        with (
            _as_unreadable(columns.where),  # if it is no table of the run's, which is told first
            database({**tables, "given": rows}) as connection,
            naming_damage(run, shards, ["samples", "texts"]),
        ):
            not_finite = _match(connection, columns)
            source = {"kind": "file", "sha256": store.sha256(file_name)}
            about = {"kind": "scores", "file": store.url(file_name)}
            scores = create(run, name, _names(connection), source, about)
            new = _write(connection, scores, commits, report or (lambda _done, _of: None))
            scored = connection.sql("SELECT DISTINCT shard, index, text_no FROM placed")
            texts, of_texts = len(scored), len(connection.table("known"))
            return Imported(scores, texts, of_texts, not_finite, new)


@dataclass(frozen=True, slots=True)
class _Columns:
    """What the columns of a file are: those that name a text, and those of scores."""

    where: str
    keys: tuple[str, ...]
    scores: tuple[str, ...]
    long: bool

    @classmethod
    def of(cls, schema: pa.Schema, where: str, name: str) -> "_Columns":
        """Read a file's schema; raises ScoresError that names the column."""
        names, listed = set(schema.names), ", ".join(map(visible, schema.names)) or "none"
        keys = next((keys for keys in _KEYS if names >= set(keys)), None)
        if keys is None:
            raise ScoresError(
                f"{where} names no texts: expected the columns shard, index and text_no, or shard, "
                f"key and text_no, or key and text; found {listed}"
            )
        if keys == ("key", "text") and "shard" in names:
            keys = ("shard", *keys)
        for key in keys:
            _check_key(schema.field(key), where)
        if names >= _LONG:
            _check_score(schema.field("value"), where)
            return cls(where, keys, ("value",), long=True)
        others = [field for field in schema if field.name not in _KEY_COLUMNS]
        scores = tuple(field.name for field in others if _is_number(field.type))
        if not scores:
            kinds = ", ".join(f"{visible(f.name)} ({f.type})" for f in others) or "none"
            raise ScoresError(f"{where} has no column of numbers beside its keys; found {kinds}")
        left = [field for field in others if field.name not in scores]
        for field in left:
            _log.warning(
                "warning: %s: column %s is %s, no number, and left out",
                where,
                field.name,
                field.type,
            )
        for score in scores:
            check_score_name(score, f"a score of {name}")
        return cls(where, keys, scores, long=False)

    @property
    def as_rows(self) -> str:
        """The SELECT that makes of the file's rows one a score, with the number of the row."""
        keys = ", ".join(self.keys)
        parts = [
            _SCORE.format(keys=keys, name="name" if self.long else f"'{score}'", value=f'"{score}"')
            for score in self.scores
        ]
        return f"CREATE TEMP TABLE scored AS {' UNION ALL '.join(parts)}"


def _match(connection: "duckdb.DuckDBPyConnection", columns: _Columns) -> int:
    """Find the text of each score; raises ScoresError. Returns how many are not finite."""
    connection.execute(_TEXTS.format(text="text" if "text" in columns.keys else "NULL"))
    connection.execute(columns.as_rows)
    connection.execute(_PLACED.format(keys=", ".join(columns.keys)))
    connection.execute("CREATE TEMP TABLE matched AS SELECT DISTINCT number FROM placed")
    where = columns.where
    count, first = _faults(connection, _STRANGE)
    if count:
        raise ScoresError(
            f"{where}: {number_of(count, 'score')} of texts that the run does not have; the first: "
            f"{_told(first)}. Leave them out, and check that {', '.join(columns.keys)} are as in "
            'the run\'s tables (`capfilt stats RUN --sql "FROM texts"`)'
        )
    count, first = _faults(connection, _AMBIGUOUS) if "shard" not in columns.keys else (0, {})
    if count:
        raise ScoresError(
            f"{where}: {number_of(count, 'row')} whose key stands on several samples with that "
            f"text; the first: key {first['key']!r}, in shards {first['first']} and "
            f"{first['last']}. Add the column shard"
        )
    count, first = _faults(connection, _TWICE)
    if count:
        raise ScoresError(
            f"{where}: {number_of(count, 'text')} with more than one score of a name; the first: "
            f"{_told(first)}. Give each text one"
        )
    if not len(connection.table("placed")):
        raise ScoresError(f"{where} has no scores: no rows, or nothing but nulls")
    count, first = _faults(connection, _NOT_FINITE)
    if count:
        _log.warning(
            "warning: %s: %s not finite; the first: %s. Texts judged by one are score_not_finite",
            where,
            f"{number_of(count, 'score')} {'is' if count == 1 else 'are'}",
            _told(first),
        )
    return count


def _write(
    connection: "duckdb.DuckDBPyConnection",
    scores: ScoreSet,
    commits: Mapping[str, Commit],
    report: Callable[[int, int], None],
) -> bool:
    """Commit the scores of every shard that has none yet; say whether there was one."""
    done = read_commits(scores.record)
    pending = len(commits.keys() - done.keys())
    if not pending:
        return False
    written, tables = 0, _by_shard(connection, scores.name)
    shard, table = next(tables)
    for facts in sorted(commits.values(), key=lambda facts: facts.shard):
        mine = SCORES.empty_table()
        if facts.shard == shard:
            mine, (shard, table) = table, next(tables, ("", mine))
        if facts.shard not in done:
            _commit(scores, facts, mine)
            written += 1
            report(written, pending)
    return True


def _commit(scores: ScoreSet, facts: Commit, table: pa.Table) -> None:
    attempt, started = start_attempt(scores.record, facts.shard), datetime.now(UTC).isoformat()
    try:
        commit_scores(scores, facts, table, attempt, {"imported": True}, started)
    except BaseException as error:
        with suppress(OSError):  # a full disk cannot record it
            end_attempt(scores.record, facts.shard, attempt, Ending.RELEASED, str(error))
        raise


def _by_shard(
    connection: "duckdb.DuckDBPyConnection", scorer: str
) -> Iterator[tuple[str, pa.Table]]:
    """Yield each shard's rows as one table, in the order of their names; it has a few at least."""
    parts: list[pa.Table] = []
    for batch in connection.sql(_SORTED, params=[scorer]).to_arrow_reader(_ROWS_AT_A_TIME):
        rows = pa.Table.from_batches([batch])
        ends = pc.run_end_encode(batch["shard"]).run_ends.to_pylist()
        for begin, end in pairwise([0, *ends]):
            part = rows.slice(begin, end - begin)
            if parts and parts[0]["shard"][0] != part["shard"][0]:
                yield parts[0]["shard"][0].as_py(), pa.concat_tables(parts).cast(SCORES)
                parts = []
            parts.append(part)
    yield parts[0]["shard"][0].as_py(), pa.concat_tables(parts).cast(SCORES)


@contextmanager
def _as_unreadable(where: str) -> Iterator[None]:
    """Say of a file that fails while it is read that it is that file."""
    import duckdb

    try:
        yield
    except (duckdb.IOException, duckdb.InvalidInputException) as error:
        raise UsageError(f"{where} cannot be read: {str(error).splitlines()[0]}") from error


@contextmanager
def _opened(store: Store, name: str) -> Iterator[pyarrow.dataset.Dataset]:
    """Open a Parquet file from anywhere as an Arrow data set; raises UsageError for none."""
    where = store.url(name)
    try:
        with store.open(name) as source, open_parquet(source, where):
            pass
        given = pyarrow.dataset.dataset([store.path(name)], filesystem=store.fs, format="parquet")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(f"{where}: no Parquet file of scores is there") from error
    except DamagedFile as error:
        raise UsageError(f"{where} is no whole Parquet file: {error.actual}") from error
    yield given


def _name_of(file_name: str) -> str:
    return re.sub(r"\W", "_", PurePosixPath(file_name).stem, flags=re.ASCII)


def _check_key(field: pa.Field, where: str) -> None:
    is_number = field.name in ("index", "text_no")
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    fits = (
        pa.types.is_integer(kind)
        if is_number
        else pa.types.is_string(kind) or pa.types.is_large_string(kind)
    )
    if not fits:
        expected = "whole numbers" if is_number else "strings"
        raise ScoresError(
            f"{where}: column {field.name!r} should hold {expected}, found {field.type}"
        )


def _check_score(field: pa.Field, where: str) -> None:
    if not _is_number(field.type):
        raise ScoresError(f"{where}: column {field.name!r} should hold numbers, found {field.type}")


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _names(connection: "duckdb.DuckDBPyConnection") -> list[str]:
    rows = connection.execute("SELECT DISTINCT name FROM scored ORDER BY 1").fetchall()
    return [str(name) for (name,) in rows]


def _faults(connection: "duckdb.DuckDBPyConnection", sql: str) -> tuple[int, dict[str, Any]]:
    """Count the rows of a question, and give the first."""
    rows = connection.sql(sql)
    first = [dict(zip(rows.columns, row, strict=True)) for row in rows.limit(1).fetchall()]
    return len(rows), first[0] if first else {}


def _told(row: Mapping[str, Any]) -> str:
    return visible(", ".join(f"{name} {value!r}" for name, value in row.items()))
