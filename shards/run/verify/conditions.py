"""Views by conditions and added scores, checked: each text is decided again, in SQL.

Written apart from what decides (which is Arrow's), so that it is a second opinion.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from shards.errors import CapfiltError
from shards.reasons import DecisionReason
from shards.run.commit import read_commit
from shards.run.data import read_data
from shards.run.run import Run
from shards.run.scoring.expression import (
    SAMPLE_COLUMNS,
    TEXT_COLUMNS,
    Column,
    Condition,
    Constant,
    Node,
    find_column,
    parse_condition,
    score_columns,
)
from shards.run.scoring.score_set import (
    ScoresError,
    ScoreSet,
    open_score_set,
    own_scorers,
    scores_file,
)
from shards.run.snapshot import SnapshotShard
from shards.run.view import View
from shards.schema import SCORES

_OPEN = {
    DecisionReason.KEPT,
    DecisionReason.ITM_BELOW_THRESHOLD,
    DecisionReason.SCORE_BELOW_THRESHOLD,
    DecisionReason.NOT_PREFERRED,  # by the run's own preference, which a view need not share
    DecisionReason.SCORE_NOT_FINITE,  # what another score decides
}
_MADE: dict[str, str] = {
    "text_chars": "len(texts.text)",
    "text_words": "len(regexp_extract_all(texts.text, '[^ ]+'))",
    "pixels": "width::BIGINT * height",
    "aspect": "greatest(width, height)::DOUBLE / least(width, height)",
}
_DECIDED = """
WITH facts AS (
  SELECT texts.index, texts.text_no, texts.origin, {columns}
  FROM texts JOIN samples USING (shard, index) {joins}
)
SELECT index, origin, coalesce({condition}, false), {by}::FLOAT, {is_not_finite}
FROM facts ORDER BY index, text_no
"""
_SCORES_OF = """
LEFT JOIN (SELECT shard, index, text_no, value AS "{name}" FROM scores
  WHERE scorer || '.' || name = '{name}') USING (shard, index, text_no)
"""

_Row = tuple[int, str, bool, float | None, bool]


def rule_problems(
    run: Run,
    view: View,
    shard: SnapshotShard,
    before: pa.Table,
    after: pa.Table,
    left_out: Collection[int] = (),
) -> Iterator[str]:
    """Yield where decisions are not what the view's rules come to; `before` are the run's own.

    Texts of samples that are left out, by index, are passed over.
    """
    if len(before) != len(after):
        return  # the check of the run's own says so
    try:
        rows = _decided(run, view, shard)
    except CapfiltError as error:
        yield f"its rules cannot be checked: {error}"
        return
    old, new = before["reason"].to_pylist(), after["reason"].to_pylist()
    wrong = []
    for number, (before_reason, reason, row) in enumerate(zip(old, new, rows, strict=True)):
        index, origin, passes, score, is_not_finite = row
        if index in left_out:
            continue
        passes = passes and _reaches(score, view.thresholds.get(origin))
        if reason not in _expected(before_reason, passes, is_not_finite, view):
            wrong.append(number)
    if wrong:
        yield f"texts not decided by the view's rules: {len(wrong)} (the first: row {wrong[0]})"
    yield from _preferred(view, rows, new)


def _expected(run_reason: str, passes: bool, is_not_finite: bool, view: View) -> set[str]:
    """Return the reasons that a text may have."""
    if run_reason not in _OPEN:
        return {run_reason}
    reasons = {str(DecisionReason.SCORE_BELOW_THRESHOLD)}
    if view.basis.by == "itm" and view.basis.where is None:
        reasons = {str(DecisionReason.ITM_BELOW_THRESHOLD)}
    if is_not_finite:
        reasons = {str(DecisionReason.SCORE_NOT_FINITE)}
    if passes:
        reasons = {str(DecisionReason.KEPT)}
        reasons |= {str(DecisionReason.NOT_PREFERRED)} if view.basis.prefer else set()
    if (
        run_reason == DecisionReason.SCORE_NOT_FINITE
    ):  # what is wrong with such a text shows only now
        faults = set(DecisionReason) - _OPEN - {DecisionReason.NOT_PREFERRED}
        reasons |= {str(fault) for fault in faults} | {run_reason}
    return reasons


def _reaches(score: float | None, threshold: float | None) -> bool:
    if threshold is None:
        return True
    return score is not None and score >= pa.scalar(threshold, pa.float32()).as_py()


def _preferred(view: View, rows: Sequence[_Row], reasons: Sequence[str]) -> Iterator[str]:
    """Check that of each sample's texts that pass, those of the first origin are the kept ones."""
    if not view.basis.prefer:
        return
    ranks = {origin: rank for rank, origin in enumerate(view.basis.prefer)}
    passing: dict[int, dict[str, set[int]]] = {}
    for (index, origin, *_), reason in zip(rows, reasons, strict=True):
        if reason in (DecisionReason.KEPT, DecisionReason.NOT_PREFERRED):
            sides = passing.setdefault(index, {"kept": set(), "not_preferred": set()})
            sides[reason].add(ranks.get(origin, len(ranks)))
    wrong = sum(
        len(sides["kept"]) != 1 or bool(sides["not_preferred"] & set(range(min(sides["kept"]) + 1)))
        for sides in passing.values()
    )
    if wrong:
        yield f"samples that do not keep the texts of the origin that comes first: {wrong}"


def _decided(run: Run, view: View, shard: SnapshotShard) -> list[_Row]:
    """Decide each text of a shard by the condition, and read the score that thresholds are on."""
    basis = view.basis
    sets = [_opened(run, name, fingerprint) for name, fingerprint in basis.scores.items()]
    qualified = own_scorers(run) | {scores.name: scores.scores for scores in sets}
    columns = TEXT_COLUMNS | SAMPLE_COLUMNS | score_columns(qualified)
    by = find_column(basis.by, columns)
    where = parse_condition(basis.where, columns) if basis.where else None
    used = dict.fromkeys((*(where.columns if where else ()), by))
    tables = {
        file.table: read_data(run, file)
        for file in shard.files
        if file.table in ("samples", "texts")
    }
    own = [read_data(run, file) for file in shard.files if file.table == "scores"]
    added = [_scores(run, scores, shard) for scores in sets]
    tables["scores"] = pa.concat_tables([SCORES.empty_table(), *own, *added])
    values: list[Any] = []
    sql = _DECIDED.format(
        columns=", ".join(_selected(column) for column in used),
        joins="".join(_SCORES_OF.format(name=column.name) for column in used if _is_added(column)),
        condition=_sql(where.root, values) if where else "true",
        by=f'"{by.name}"',
        is_not_finite=_not_finite(where, by, has_thresholds=bool(view.thresholds)),
    )
    import duckdb  # a tenth of a second, and few views need it

    with duckdb.connect() as connection:
        for name, table in tables.items():
            connection.register(name, table)
        connection.execute("SET python_enable_replacements = false")
        return connection.execute(sql, values).fetchall()


def _scores(run: Run, scores: ScoreSet, shard: SnapshotShard) -> pa.Table:
    done = read_commit(scores.record, shard.shard)
    if done is None:
        raise ScoresError(f"scores {scores.name!r} of shard {shard.shard} are not there")
    return read_data(run, scores_file(scores.name, done, shard.files))


def _opened(run: Run, name: str, fingerprint: str) -> ScoreSet:
    scores = open_score_set(run, name)
    if scores.record.fingerprint != fingerprint:
        raise ScoresError(
            f"scores {name!r} are {scores.record.fingerprint}, not {fingerprint}, which it is by"
        )
    return scores


def _is_added(column: Column) -> bool:
    return column.name not in TEXT_COLUMNS and column.name not in SAMPLE_COLUMNS


def _selected(column: Column) -> str:
    table = "texts" if column.name in TEXT_COLUMNS else "samples"
    name = f'"{column.name}"'
    return f"{name if _is_added(column) else _MADE.get(column.name, f'{table}.{name}')} AS {name}"


def _not_finite(where: Condition | None, by: Column, *, has_thresholds: bool) -> str:
    """Write SQL that asks whether a score that the rules name is there, and is not finite."""
    named = [column for column in (where.columns if where else ()) if column.is_score]
    named += [by] if has_thresholds else []
    asked = [f'coalesce(NOT isfinite("{column.name}"), false)' for column in named]
    return " OR ".join(asked) or "false"


def _sql(node: Node, values: list[Any], beside_score: bool = False) -> str:
    """Write a node as SQL, its constants as parameters; they are added to `values`."""
    if isinstance(node, Column):
        name = f'"{node.name}"'
        return f"CASE WHEN isfinite({name}) THEN {name} END" if node.is_score else name
    if isinstance(node, Constant):
        values.append(node.value)
        return f"${len(values)}::{'FLOAT' if beside_score else _TYPES[node.kind]}"
    is_score = any(isinstance(part, Column) and part.is_score for part in node.parts)
    compares = node.kind == "flag"
    parts = [_sql(part, values, is_score and compares) for part in node.parts]
    if node.kind == "number":
        left, right = (f"({part})::DOUBLE" for part in parts)
        computed = f"{left} {node.name} {right}"
        return f"(CASE WHEN isfinite({computed}) THEN {computed} END)"
    return f"({_WRITTEN[node.name](parts)})"


def _joined(operator: str) -> Callable[[Sequence[str]], str]:
    return lambda parts: f" {operator} ".join(parts)


_TYPES: Mapping[str, str] = {"number": "DOUBLE", "text": "VARCHAR", "flag": "BOOLEAN"}
_COMPARED = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_WRITTEN: Mapping[str, Callable[[Sequence[str]], str]] = {
    **{name: _joined(operator) for name, operator in _COMPARED.items()},
    "and": _joined("AND"),
    "or": _joined("OR"),
    "not": lambda parts: f"NOT {parts[0]}",
    "is_null": lambda parts: f"({parts[0]}) IS NULL",
    "contains": lambda parts: f"contains({parts[0]}, {parts[1]})",
    "in": lambda parts: f"{parts[0]} IN ({', '.join(parts[1:])})",
}
