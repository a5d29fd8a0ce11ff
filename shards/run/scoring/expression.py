"""Conditions on texts, as people write them: `itm >= 0.5 and siglip2.prob >= 0.2`.

They are parsed, bounded and checked, and never evaluated as code: what comes out is a small tree of
columns, constants and operations, for whoever compiles it. The language is Python's of conditions:
and, or, not, comparisons (chains of them, too), in, is None, + - * /, and `"word" in text`.

Null is as in SQL: what is compared with it is neither true nor false, and only what is true passes.
"""

import ast
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from shards.errors import UsageError

MOST_CHARACTERS, MOST_DEPTH, MOST_PARTS = 2_000, 32, 200
EXAMPLE = "itm >= 0.5 and width >= 256"

Kind = Literal["number", "text", "flag"]  # a flag is true or false, as a condition is
_KINDS = {"number": "a number", "text": "a text", "flag": "true or false"}
_COMPARED = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_COMPUTED = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_LARGEST = 2**63
_SINGLE_EQUALS = re.compile(r"[^=!<>]=[^=]")
_SHOUTED = re.compile(r"\b(?:AND|OR|NOT|IN|IS)\b")


class ExpressionError(UsageError):
    """What is no condition, or names what is not there."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column that a condition may name; scores are float32, and may be missing."""

    name: str
    kind: Kind
    is_score: bool = False


@dataclass(frozen=True, slots=True)
class Constant:
    """A number, a text, or true or false."""

    value: float | str | bool

    @property
    def kind(self) -> Kind:
        """What it is."""
        if isinstance(self.value, bool):
            return "flag"
        return "text" if isinstance(self.value, str) else "number"


@dataclass(frozen=True, slots=True)
class Operation:
    """What is done with parts: and or not, a comparison, in, contains, is_null, or + - * /."""

    name: str
    parts: "tuple[Node, ...]"
    kind: Kind = "flag"


Node = Column | Constant | Operation


@dataclass(frozen=True, slots=True)
class Condition:
    """A checked condition, written in the one way that equal ones share."""

    text: str
    root: Node

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that it names, each once."""
        return tuple(dict.fromkeys(node for node in _walk(self.root) if isinstance(node, Column)))


_SCORES = ("itm", "itm_logit", "itc", "logprob")
_OF_TEXTS: dict[str, Kind] = {
    "text_no": "number",
    "origin": "text",
    "author": "text",
    "text": "text",
    "text_chars": "number",
    "text_words": "number",
    "tokens": "number",
    "truncated": "flag",
}
_OF_SAMPLES: dict[str, Kind] = {
    "key": "text",
    "text_reason": "text",
    "language": "text",
    "width": "number",
    "height": "number",
    "pixels": "number",
    "aspect": "number",
    "format": "text",
    "bytes": "number",
    "url": "text",
}
TEXT_COLUMNS = {name: Column(name, "number", is_score=True) for name in _SCORES} | {
    name: Column(name, kind) for name, kind in _OF_TEXTS.items()
}
SAMPLE_COLUMNS = {name: Column(name, kind) for name, kind in _OF_SAMPLES.items()}


def score_columns(qualified: Mapping[str, tuple[str, ...]]) -> dict[str, Column]:
    """Make the columns of sets of scores, by SET.SCORE, and by SET where it has one score."""
    columns: dict[str, Column] = {}
    for name, scores in qualified.items():
        made = [Column(f"{name}.{score}", "number", is_score=True) for score in scores]
        columns |= {column.name: column for column in made}
        if len(made) == 1:
            columns[name] = made[0]
    return columns


def parse_condition(text: str, columns: Mapping[str, Column]) -> Condition:
    """Read a condition over these columns; raises ExpressionError."""
    if len(text) > MOST_CHARACTERS:
        raise ExpressionError(
            f"a condition of {len(text):,} characters; {MOST_CHARACTERS:,} at most. Write what is "
            "long into a file of scores (`capfilt judge RUN --scores`)"
        )
    try:
        with warnings.catch_warnings(action="ignore"):  # Python's own, about code
            tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ExpressionError(f"{text[:200]!r} is no condition: {_said(error, text)}") from None
    _check_bounds(tree, text)
    root = _Reader(text, columns).read(tree)
    if root.kind != "flag" or isinstance(root, Constant):
        raise ExpressionError(
            f"{text!r} is {_KINDS[root.kind]}, and no condition; expected such as: {EXAMPLE}"
        )
    return Condition(ast.unparse(tree), root)


def find_column(name: str, columns: Mapping[str, Column]) -> Column:
    """Return the column of a name; raises ExpressionError with the nearest."""
    if name in columns:
        return columns[name]
    nearest = get_close_matches(name, columns, n=1)
    parts = [full for full in columns if full.startswith(f"{name}.")]
    hint = f"; did you mean {' or '.join(parts or nearest)}?" if parts or nearest else ";"
    raise ExpressionError(
        f"no score or column {name!r}{hint} there are: {', '.join(sorted(columns))}"
    )


class _Reader:
    """Makes checked nodes of Python's; what it has no rule for is refused."""

    def __init__(self, text: str, columns: Mapping[str, Column]) -> None:
        self._text, self._columns = text, columns

    def read(self, node: ast.expr) -> Node:
        """Read one node, and what is in it."""
        match node:
            case ast.BoolOp():
                name = "and" if isinstance(node.op, ast.And) else "or"
                return Operation(name, tuple(self._of(part, "flag") for part in node.values))
            case ast.UnaryOp(op=ast.Not()):
                return Operation("not", (self._of(node.operand, "flag"),))
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
                return self._signed(node)
            case ast.BinOp() if type(node.op) in _COMPUTED:
                parts = (self._of(node.left, "number"), self._of(node.right, "number"))
                return Operation(_COMPUTED[type(node.op)], parts, "number")
            case ast.Compare():
                return self._chain(node)
            case ast.Name():
                return find_column(node.id, self._columns)
            case ast.Attribute(value=ast.Name(id=owner)):
                return find_column(f"{owner}.{node.attr}", self._columns)
            case ast.Constant():
                return self._constant(node)
        raise self._refused(node)

    def _of(self, node: ast.expr, kind: Kind) -> Node:
        read = self.read(node)
        if read.kind != kind:
            raise ExpressionError(
                f"{self._source(node)} is {_KINDS[read.kind]}, where {self._text!r} needs "
                f"{_KINDS[kind]}"
            )
        if kind == "flag" and isinstance(read, Constant):
            raise ExpressionError(f"{self._text!r}: {self._source(node)} decides nothing")
        return read

    def _signed(self, node: ast.UnaryOp) -> Node:
        part = self._of(node.operand, "number")
        if isinstance(node.op, ast.UAdd):
            return part
        if isinstance(part, Constant):
            return Constant(-float(part.value))
        return Operation("-", (Constant(0.0), part), "number")

    def _chain(self, node: ast.Compare) -> Node:
        """Read a comparison; of a chain, each with the next."""
        lefts = [node.left, *node.comparators]
        steps = zip(lefts, node.ops, node.comparators, strict=False)
        parts = tuple(self._compare(*step) for step in steps)
        return parts[0] if len(parts) == 1 else Operation("and", parts)

    def _compare(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> Node:
        match operator:
            case ast.Is() | ast.IsNot():
                return _negated(self._is_null(left, right), isinstance(operator, ast.IsNot))
            case ast.In() | ast.NotIn():
                return _negated(self._is_in(left, right), isinstance(operator, ast.NotIn))
        name = _COMPARED[type(operator)]
        parts = (self.read(left), self.read(right))
        kinds = {part.kind for part in parts}
        source = f"{self._source(left)} {name} {self._source(right)}"
        if len(kinds) > 1:
            told = " with ".join(_KINDS[part.kind] for part in parts)
            raise ExpressionError(f"{source} compares {told}")
        if kinds != {"number"} and name not in ("==", "!="):
            raise ExpressionError(f"{source}: only numbers are more or less; expected == or !=")
        if not any(isinstance(part, Column) for whole in parts for part in _walk(whole)):
            raise ExpressionError(f"{source} names no score and no column, and decides nothing")
        return Operation(name, parts)

    def _is_null(self, left: ast.expr, right: ast.expr) -> Node:
        column = self.read(left)
        is_none = isinstance(right, ast.Constant) and right.value is None
        if not is_none or not isinstance(column, Column):
            raise ExpressionError(f"{self._text!r}: `is` asks for None alone, as in: itc is None")
        return Operation("is_null", (column,))

    def _is_in(self, left: ast.expr, right: ast.expr) -> Node:
        """Read `format in ("png", "gif")`, or `"word" in text`."""
        if not isinstance(right, ast.Tuple | ast.List | ast.Set):
            whole, part = self._of(right, "text"), self._of(left, "text")
            if not (isinstance(whole, Column) and isinstance(part, Constant)):
                raise ExpressionError(f'{self._text!r}: expected such as "word" in text')
            return Operation("contains", (whole, part))
        column = self.read(left)
        options = tuple(self._of(option, column.kind) for option in right.elts)
        only_constants = all(isinstance(option, Constant) for option in options)
        if not isinstance(column, Column) or not only_constants or not options:
            raise ExpressionError(f'{self._text!r}: expected such as format in ("png", "gif")')
        return Operation("in", (column, *options))

    def _constant(self, node: ast.Constant) -> Constant:
        value = node.value
        if isinstance(value, bool | str):
            return Constant(value)
        if isinstance(value, int | float) and math.isfinite(value) and abs(value) <= _LARGEST:
            return Constant(float(value))
        raise self._refused(node)

    def _refused(self, node: ast.expr) -> ExpressionError:
        return ExpressionError(
            f"{self._text!r}: {self._source(node)} has no meaning here; expected names of scores "
            "and columns, numbers, texts in quotes, and or not, == != < <= > >=, in, is None, "
            "+ - * /"
        )

    def _source(self, node: ast.expr) -> str:
        return ast.unparse(node)[:100]


def _negated(node: Node, is_negated: bool) -> Node:
    return Operation("not", (node,)) if is_negated else node


def _walk(node: Node) -> Iterator[Node]:
    yield node
    if isinstance(node, Operation):
        for part in node.parts:
            yield from _walk(part)


def _check_bounds(tree: ast.expr, text: str) -> None:
    """Refuse what is too deep or has too many parts, before anything follows it down."""
    level, depth, parts = [tree], 0, 0
    while level:
        depth, parts = depth + 1, parts + len(level)
        if depth > MOST_DEPTH or parts > MOST_PARTS:
            raise ExpressionError(
                f"{text[:60]!r} …: a condition of more than {MOST_PARTS} parts, or {MOST_DEPTH} "
                "within each other"
            )
        level = [
            part for node in level for part in ast.iter_child_nodes(node)
            if isinstance(part, ast.expr)
        ]  # fmt: skip


def _said(error: BaseException, text: str) -> str:
    if _SINGLE_EQUALS.search(text):
        return f"equal is ==, as in: {EXAMPLE}"
    if word := _SHOUTED.search(text):
        return f"{word[0]} is written {word[0].lower()}, as in: {EXAMPLE}"
    where = f"character {error.offset}: " if isinstance(error, SyntaxError) and error.offset else ""
    why = error.msg if isinstance(error, SyntaxError) else "it cannot be read"
    return f"{where}{why}; expected such as: {EXAMPLE}"
