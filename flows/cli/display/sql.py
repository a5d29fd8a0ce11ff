"""The answer to a question in SQL: a table on a terminal, or JSON."""

import datetime
import json
import math
from collections.abc import Sequence
from decimal import Decimal
from itertools import islice
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.table import Column, Table
from rich.text import Text

from pipeline.printable import count, cut, visible
from shards.query.query import QueryResult

ROWS_SHOWN = 40
CELL_CHARACTERS = 300
COLUMN_CHARACTERS = 10  # that a column of a table needs to be read with ease


def print_answer(answer: QueryResult) -> None:
    """Print the first rows, as a table or, where it would be too wide, one under another."""
    console = Console()
    rows = list(islice(answer.rows, ROWS_SHOWN))
    if console.width >= len(answer.columns) * COLUMN_CHARACTERS:
        console.print(_table(answer.columns, rows))
    else:
        for row in rows:
            console.print(_record(answer.columns, row), Rule(style="dim"))
    more = sum(1 for _ in answer.rows)
    if more:
        shown, total = count(len(rows)), count(len(rows) + more)
        console.print(f"the first {shown} of {total} rows; --json gives all", highlight=False)


def print_answer_as_json(answer: QueryResult) -> None:
    """Print one array of objects, row by row as they come."""
    print("[", end="")
    for number, row in enumerate(answer.rows):
        record = dict(zip(answer.columns, map(plain, row), strict=True))
        print("," if number else "", json.dumps(record), sep="", end="")
    print("]")


def plain(value: Any) -> Any:  # noqa: ANN401 - any value of DuckDB or Arrow
    """Return a value as JSON has it: bytes in hex, times in ISO 8601, what is no number as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, bytes | bytearray):
        return value.hex()
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date, too
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    return str(value)


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    table = Table(*(Column(Text(visible(name)), overflow="fold") for name in columns))
    for row in rows:
        table.add_row(*map(_cell, row))
    return table


def _record(columns: Sequence[str], row: Sequence[Any]) -> Table:
    grid = Table.grid(Column(style="dim", no_wrap=True), Column(overflow="fold"), padding=(0, 2))
    for name, value in zip(columns, row, strict=True):
        cell = _cell(value)
        cell.justify = "left"
        grid.add_row(Text(visible(name)), cell)
    return grid


def _cell(value: object) -> Text:
    """Write one cell; as Text, so that no sign in it is taken for markup."""
    if value is None:
        return Text("NULL", style="dim")
    if isinstance(value, float):
        return Text(f"{value:.6g}", justify="right")
    if isinstance(value, int) and not isinstance(value, bool):
        return Text(str(value), justify="right")
    said = value if isinstance(value, str) else str(plain(value))
    return Text(visible(cut(said, CELL_CHARACTERS) or ""))
