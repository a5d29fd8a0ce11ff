"""Each rule between the rows of a shard's tables is broken once, and found out."""

import re
from typing import Any

import pytest

from tests.shards.conftest import MakeRun
from tests.support.changed_run import Change, change_table, problems, with_value

CHANGES = [
    ("samples", lambda t: t.slice(1), "index is not 0 to"),
    ("samples", with_value("index", 3, 4), "index is not 0 to"),
    ("samples", with_value("shard", 0, "other"), "samples holds rows of other shards"),
    ("samples", with_value("status", 0, "fine"), "neither ok nor rejected"),
    ("samples", with_value("reason", 0, "image_blank"), "ok with one"),
    ("samples", with_value("reason", 4, None), "without a reason"),
    ("samples", with_value("reason", 4, "image_empty"), "counts: expected"),
    ("samples", with_value("key", 0, "k001"), "more than one ok sample"),
    ("samples", with_value("key", 3, "k999"), "is not the kept|samples: expected"),
    ("samples", with_value("text_reason", 0, "text_empty"), "without a text_reason"),
    ("samples", lambda t: t.drop_columns(["key"]), "column 'key'"),
    ("texts", lambda t: t.slice(1), "decisions are not one|web texts do not stand"),
    ("texts", lambda t: t.take(list(range(len(t)))[::-1]), "order of index and text_no"),
    ("texts", with_value("index", 19, 4), "order of index|not ok"),
    ("texts", with_value("origin", 1, "web"), "text_no 0 is not"),
    ("texts", with_value("origin", 1, "llava"), "counts: expected"),
    ("texts", with_value("text", 3, "another"), "not the kept sample"),
    ("texts", with_value("itm", 3, 0.875), "not the kept sample"),
    ("decisions", lambda t: t.take(list(range(len(t)))[::-1]), "in the order of the texts"),
    ("decisions", lambda t: t.slice(0, len(t) - 1), "one for each text"),
    ("decisions", with_value("reason", 0, "kept"), "contradict"),
    ("decisions", with_value("reason", 0, "score_not_finite"), "counts: expected"),
]


@pytest.mark.parametrize(("table", "change", "message"), CHANGES)
def test_changed_rows(
    make_run: MakeRun, tmp_path: Any, table: str, change: Change, message: str
) -> None:
    run = make_run(str(tmp_path / "run"))
    assert problems(run) == ""
    change_table(run, table, change)
    assert re.search(message, problems(run)), problems(run)
