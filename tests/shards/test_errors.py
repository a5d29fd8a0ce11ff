"""Every expected error of the product carries the exit code that the command line ends in."""

import ast
from pathlib import Path

import pytest
from botocore.exceptions import NoCredentialsError

from shards.errors import CapfiltError, UsageError, is_store_error
from shards.inputs.shard import InputChanged, InputError
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


def test_what_stores_raise_is_told_from_bugs() -> None:
    assert is_store_error(NoCredentialsError())
    assert is_store_error(PermissionError("no"))
    assert not is_store_error(KeyError("a bug"))
