"""Damaged inputs of every kind: each sample is accepted or rejected for a reason, none is lost."""

import pytest

from tests.support.fuzz.cases import KINDS, case

SEED = 16


@pytest.mark.parametrize("kind", sorted(set(KINDS)))
def test_some_damaged_inputs_are_rows_with_reasons(kind: str) -> None:
    numbers = [number for number in range(350) if KINDS[number % len(KINDS)] == kind]
    endings = {case(SEED, number).check() for number in numbers}
    if kind in ("tar", "picture", "annotations"):
        assert len(endings) > 1, "damage that is never noticed, or always, tests little"
