"""Every expected error of the product carries the exit code that the command line ends in."""

import ast
from pathlib import Path

import pytest

from shards.errors import CapfiltError, UsageError
from shards.inputs.listing import InputChanged, InputError
from shards.writer import WriteCheckError
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ("error", "code"), [(InputError, 2), (InputChanged, 1), (WriteCheckError, 1)]
)
def test_an_error_carries_its_exit_code(error: type[CapfiltError], code: int) -> None:
    assert error.exit_code == code
    assert issubclass(error, CapfiltError)


def test_bad_usage_is_a_value_error() -> None:
    assert issubclass(UsageError, ValueError)


def test_no_code_matches_errors_by_the_spelling_of_their_class() -> None:
    faults = Path(REPOSITORY, "flows/cli/faults.py").read_text(encoding="utf-8")
    strings = [node.value for node in ast.walk(ast.parse(faults)) if isinstance(node, ast.Constant)]
    assert not [text for text in strings if isinstance(text, str) and text.endswith("Error")]
