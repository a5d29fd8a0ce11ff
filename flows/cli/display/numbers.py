"""Numbers by name: a row for each, or JSON."""

import json
from collections.abc import Mapping
from typing import Any

from pipeline.printable import visible


def print_numbers(numbers: Mapping[str, Any], as_json: bool) -> None:
    """Print numbers, those of a group under dotted names."""
    if as_json:
        print(json.dumps(numbers))
        return
    rows = [(visible(name), value) for name, value in _flat(numbers)]  # some come from data
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {_shown(value)}")


def _flat(numbers: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in numbers.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", value))
    return rows


def _shown(value: float | str | None) -> str:
    if value is None:
        return "none"
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
