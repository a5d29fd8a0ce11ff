"""Texts and sidecars met in the field: what their manifest expects, and more of each kind."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from models.checkpoints import locate
from models.roles.filter import Filter
from pipeline.clean.screen import ScreenConfig, screen
from shards.inputs.reader import RawSample, ShardReader, open_shard
from shards.reasons import TextReason
from shards.schema import SampleRow

CONFIG = ScreenConfig()


@pytest.fixture(scope="module")
def scorer() -> Filter:
    return Filter.load(locate.SHIPPED["tiny-filter"])


@pytest.fixture(scope="module")
def field_cases(data_dir: Path) -> Path:
    folder = data_dir / "field_cases"
    if not folder.is_dir():
        pytest.skip(f"no inputs of the field at {folder}")
    return folder


def rows_of(folder: Path, kind: str, scorer: Filter) -> dict[str, tuple[RawSample, SampleRow]]:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    rows = {}
    for case in (case for case in manifest if case["kind"] == kind):
        with open_shard(str(folder / case["file"])) as file:
            raws = list(ShardReader(file))
        for raw in raws:
            facts = screen(raw, CONFIG, count_tokens=scorer.count_tokens).facts
            rows[raw.key] = raw, facts
    assert rows
    return rows


def test_texts_that_show_nothing(field_cases: Path, scorer: Filter) -> None:
    """What is seen in them is English words, or nothing."""
    for key, (raw, row) in rows_of(field_cases, "texts that show nothing", scorer).items():
        seen = " ".join(re.findall("[A-Za-z]+", (raw.text or b"").decode()))
        assert (row["status"], row["web_text"]) == ("ok", seen or None), key
        assert row["text_reason"] == (None if seen else TextReason.EMPTY), key


def test_sidecars(field_cases: Path, scorer: Filter) -> None:
    """Those that the manifest names keep url and meta; no other one costs its picture or text."""
    rows = rows_of(field_cases, "sidecars", scorer)
    for key, (raw, row) in rows.items():
        assert (row["status"], row["web_text"]) == ("ok", (raw.text or b"").decode()), key
        if row["meta"] is not None:
            json.loads(row["meta"], parse_constant=pytest.fail)
            assert "json_unreadable" not in (row["notes"] or ())
    for key in ("m_nan", "m_inf", "m_bom"):
        _, row = rows[key]
        meta = json.loads(row["meta"] or "")
        assert (row["url"], row["notes"]) == (meta["url"], ["json_repaired"])
        assert meta.get("similarity") is None


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("\u00ad\u200b\u2062", 0),
        ("\U000e0041\U000e0042\U000e007f", 0),
        ("\u180e\u034f\ufeff\u2061", 0),
        ("!!! ... ***", 0),  # signs that BLIP takes for blanks
        ("\ufffd\ufffd", 0),  # what stands for lost letters
        ("\ue000\uf8ff", 0),  # letters of nobody's font
        ("\u0301\u0323", 0),  # marks without a letter
        ("🙂", 1),  # unknown to the vocabulary, and yet seen: it is scored
        ("猫", 1),
        ("-", 1),
        ("a", 1),
    ],
)
def test_what_has_no_token_is_no_text(
    text: str, tokens: int, scorer: Filter, noise: Any, encode: Any
) -> None:
    raw = RawSample(0, "k", encode(noise(), "PNG"), "png", text.encode(), None, None, None, 0)
    facts = screen(raw, CONFIG, count_tokens=scorer.count_tokens).facts
    expected = (text, None) if tokens else (None, TextReason.EMPTY)
    assert (facts["web_text"], facts["text_reason"]) == expected
    if tokens:
        assert scorer.count_tokens(text) == tokens
