"""Inputs as people bring them: rows, texts and reasons are what the list of cases says."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.clean.screen import ScreenConfig, screen
from shards.inputs.listing import list_inputs
from shards.inputs.opening import open_samples
from shards.inputs.shard import InputError, InputOptions
from shards.inputs.text import TextSource

DATA = Path(os.environ.get("CAPFILT_TEST_DATA", "data"))
DOOR, BAD = DATA / "door_cases", DATA / "bad_inputs"


def cases() -> list[dict[str, Any]]:
    if not (DOOR / "manifest.json").is_file():
        return []
    listed = json.loads((DOOR / "manifest.json").read_bytes())
    return [case for case in listed if case["kind"] != "urls"]


def tables() -> list[dict[str, Any]]:
    if not (BAD / "manifest.json").is_file():
        return []
    listed = json.loads((BAD / "manifest.json").read_bytes())
    return [case for case in listed if case["level"] == "table"]


def screened(source: Path, text: str, caplog: pytest.LogCaptureFixture) -> tuple[Any, ...]:
    """Read and screen an input: its rows, the exit code that a run would have, what was said."""
    found = TextSource.parse(text)
    try:
        listed = list_inputs([str(source)], None, InputOptions(text=found))
    except InputError as error:
        return [], error.exit_code, str(error)
    rows, damaged = [], False
    for shard in listed:
        with open_samples(shard, found) as reader:
            rows += [screen(raw, ScreenConfig()).facts for raw in reader]
            damaged |= reader.state.damaged
            assert reader.bytes_read == shard.size_bytes
    return rows, 3 if damaged else 0, caplog.text


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["id"])
def test_a_case_is_as_its_list_says(case: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    spec = importlib.util.spec_from_file_location("compare", DOOR / "compare.py")
    assert spec is not None
    assert spec.loader is not None
    compare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(compare)
    source = DOOR / str(case.get("file") or case.get("folder"))
    text = (case.get("options") or {}).get("input.text", "txt")
    rows, code, said = screened(source, text, caplog)
    rows = [{"text_reason": None, "web_text": None, **row} for row in rows]
    assert compare.differences(case["expected"], rows, code, said) == []


@pytest.mark.parametrize("case", tables(), ids=lambda case: case["case"])
def test_a_table_of_addresses_is_refused_with_what_to_do(
    case: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    _, code, said = screened(BAD / case["file"], "txt", caplog)
    assert code == 2
    assert case["file"] in said
    reason = case["reason"] if case["reason"] in ("not_parquet", "missing_column") else None
    assert "capfilt download" in said or (reason is not None and reason in said)
