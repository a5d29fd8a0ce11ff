"""Numbers by name, for people and for machines."""

import json
import math

import pytest

from flows.cli.display.numbers import print_numbers

NUMBERS = {
    "images": 12345,
    "auc": 0.98765,
    "cider": None,
    "tokenizer": "words",
    "itm": {"tr@1": 0.5, "by\x1b[2J": {"red": 2}},
}


def test_people_get_a_row_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    print_numbers(NUMBERS, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "images          12,345",
        "auc             0.9877",
        "cider           none",
        "tokenizer       words",
        "itm.tr@1        0.5000",
        "itm.by␛[2J.red  2",
    ]


def test_machines_get_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_numbers(NUMBERS, as_json=True)
    assert json.loads(capsys.readouterr().out) == NUMBERS
    print_numbers({"loss": math.inf}, as_json=False)
    assert capsys.readouterr().out == "loss  inf\n"
