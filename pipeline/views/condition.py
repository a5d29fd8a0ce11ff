"""Evaluate a condition over a table of facts, by Arrow: true, false or null for each text."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from shards.run.scoring.expression import Column, Constant, Node, Operation

_COMPARE: dict[str, Callable[..., Any]] = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_COMPUTE: dict[str, Callable[..., Any]] = {
    "+": pc.add,
    "-": pc.subtract,
    "*": pc.multiply,
    "/": pc.divide,
}
_JOIN: dict[str, Callable[..., Any]] = {"and": pc.and_kleene, "or": pc.or_kleene}
_ASK: dict[str, Callable[..., Any]] = {
    "not": pc.invert,
    "is_null": pc.is_null,
    "contains": lambda texts, word: pc.match_substring(texts, word.as_py()),
}


def evaluate(node: Node, facts: pa.Table) -> Any:  # noqa: ANN401 - an Arrow array, or a scalar
    """Evaluate a node; a constant that a score stands beside is rounded as scores are, to float32.

    What cannot be computed (a division by zero) is null, as what is missing is.
    """
    if isinstance(node, Column):
        return facts[node.name]
    if isinstance(node, Constant):
        return pa.scalar(node.value)
    return _operate(node, facts)


def _operate(node: Operation, facts: pa.Table) -> Any:  # noqa: ANN401 - an Arrow array
    name, parts = node.name, node.parts
    if name in _COMPARE:
        return _COMPARE[name](*_compared(parts, facts))
    if name == "in":
        return _is_in(parts, facts)
    values = [evaluate(part, facts) for part in parts]
    if name in _JOIN:
        return reduce(_JOIN[name], values)
    if name in _ASK:
        return _ASK[name](*values)
    computed = _COMPUTE[name](*(pc.cast(value, pa.float64()) for value in values))
    return pc.if_else(pc.is_finite(computed), computed, None)


def _is_in(parts: tuple[Node, ...], facts: pa.Table) -> Any:  # noqa: ANN401 - an Arrow array
    """Compare with each option, so that null stays null, and scores are compared as above."""
    equal = (pc.equal(*_compared((parts[0], option), facts)) for option in parts[1:])
    return reduce(pc.or_kleene, equal)


def _compared(parts: tuple[Node, ...], facts: pa.Table) -> list[Any]:
    values = [evaluate(part, facts) for part in parts]
    is_score = any(isinstance(part, Column) and part.is_score for part in parts)
    if is_score and any(isinstance(part, Constant) for part in parts):
        return [pc.cast(value, pa.float32(), safe=False) for value in values]
    return values
