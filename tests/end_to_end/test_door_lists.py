"""Lists of addresses as people have them: each row ends as the list of cases says, once."""

import importlib.util
import json
import os
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.clean.screen import ScreenConfig, screen
from shards.download.record import Download, PartCommit
from shards.inputs.listing import list_inputs
from shards.inputs.opening import open_samples
from shards.run.record import read_record
from shards.store import Store
from tests.support import served
from tests.support.driving import CAPFILT, Command

DOOR = Path(os.environ.get("CAPFILT_TEST_DATA", "data")) / "door_cases"
LISTED, PUBLIC = "127.0.0.1:8765", "93.184.216.34"
GROUPS = {"blocked_address": "address_not_allowed"}  # the others are called as the codes
# Bounds that an answer of a second a byte, or of none, runs into soon.
FLAGS = ("--direct", "--timeout=4", "--deadline=8", "--threads=16")


def cases() -> list[Any]:
    if not (DOOR / "manifest.json").is_file():
        return []
    listed = json.loads((DOOR / "manifest.json").read_bytes())
    lists = [case for case in listed if case["kind"] == "urls"]
    both = [(case, mode) for case in lists for mode in ("open", "guarded")]
    return [
        pytest.param(case, mode, id=f"{case['id']}-{mode}", marks=marks_of(case, mode))
        for case, mode in both
        if not (mode == "open" and "flags" in case["expected"])  # it says itself: without any
    ]


def marks_of(case: dict[str, Any], mode: str) -> list[pytest.MarkDecorator]:
    """Mark what runs into bounds of time, and what differs little from the guarded mode."""
    is_slow = mode == "open" or "within_seconds" in case["expected"]
    return [pytest.mark.nightly] if is_slow else []


def with_repeats(expected: dict[str, Any]) -> dict[str, Any]:
    """Let a row with the address and the text of an earlier one be a duplicate.

    Of one case they say so, in another they forget the row that is there twice.
    """
    earlier, rows = set(), []
    for told in expected.get("by_row", ()):
        sample = (told["url"], told.get("text"))
        if sample in earlier:
            told = told | {mode: [*told[mode], "duplicate_url"] for mode in ("open", "guarded")}
        earlier.add(sample)
        rows.append(told)
    return expected | ({"by_row": rows} if rows else {})


def load_compare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compare", DOOR / "compare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_list(source: Path, folder: Path, host: str) -> Path:
    """Copy a list with the address of the server in place of that of the cases."""
    path = folder / source.name
    if source.suffix != ".parquet":
        path.write_bytes(source.read_bytes().replace(LISTED.encode(), f"{host}:8765".encode()))
        return path
    table = pq.read_table(source)
    for position, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            moved = pc.replace_substring(table[field.name], LISTED, f"{host}:8765")
            table = table.set_column(position, field, moved)
    pq.write_table(table, path)
    return path


def commits_of(download: Download, retry: int) -> list[PartCommit]:
    names = download.store.list("record/commits")
    read = [PartCommit.model_validate(read_record(download.store.read(n), n)) for n in names]
    return [commit for commit in read if commit.retry == retry]


def outcomes(web: Path, retry: int = 0) -> list[dict[str, Any]]:
    """Say what became of each row after `download` and what `clean` makes of its picture."""
    download = Download.open(Store(str(web)))
    rows = [row for commit in commits_of(download, retry) for row in download.rows(commit)]
    screened: dict[str | None, Any] = {}
    if any(row["status"] == "ok" for row in rows):
        for shard in list_inputs([str(web)]):
            with open_samples(shard) as reader:
                facts = [screen(raw, ScreenConfig()).facts for raw in reader]
            screened |= {fact["key"]: fact for fact in facts}
    return [outcome(row, screened.get(row["key"])) for row in rows]


def outcome(row: dict[str, Any], facts: Any) -> dict[str, Any]:
    if row["status"] != "ok":
        return {"row": row["row"], "group": GROUPS.get(row["reason"], row["reason"])}
    group = "ok" if facts["status"] == "ok" else facts["reason"]
    return {
        "row": row["row"],
        "group": group,
        "sha256": facts["sha256"],
        "text": facts.get("web_text"),
    }


def asked_for(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.parametrize(("case", "mode"), cases())
def test_each_row_ends_as_its_case_says(
    case: dict[str, Any], mode: str, capfilt_ray: Command, img2dataset: str, tmp_path: Path
) -> None:
    expected, log, web = (
        with_repeats(case["expected"]),
        tmp_path / "requests.jsonl",
        tmp_path / "web",
    )
    log.touch()
    is_moved = mode == "guarded" and "flags" not in expected
    host = PUBLIC if is_moved else "127.0.0.1"
    source = write_list(DOOR / case["file"], tmp_path, host)
    serve = [sys.executable, str(DOOR / "urls" / "serve.py"), f"--host={host}", f"--log={log}"]
    chosen = json.dumps({"addresses": [PUBLIC] if is_moved else [], "server": serve})
    beside = [*capfilt_ray.prefix, sys.executable, served.__file__, chosen]
    allowed = ("--allow-private-addresses",) if mode == "open" else ()
    asked = ("download", source, web, *FLAGS, *allowed, f"--img2dataset={img2dataset}")
    later = [told["row"] for told in expected.get("by_row", ()) if told.get("after_retry") == "ok"]
    again = ("--then", CAPFILT, *asked, "--retry") if later else ()

    begun = time.monotonic()
    done = replace(capfilt_ray, prefix=beside).run(*asked, *again)
    took_s = time.monotonic() - begun

    rows = outcomes(web) if done.returncode == 0 else []
    said, code = done.stdout + done.stderr, done.returncode
    assert load_compare().download_differences(expected, rows, mode, code, said) == []
    assert took_s < expected.get("within_seconds", 180)
    ended = {row["row"]: row["group"] for row in (outcomes(web, retry=1) if later else ())}
    assert [ended[row] for row in later] == ["ok"] * len(later)
    requests = asked_for(log)
    if not later:  # a retry asks again
        paths = Counter(request["path"] for request in requests)
        most = expected.get("fetched_at_most", {})
        assert {path: paths[path] for path in most} == most
    if "requests" in expected:
        assert len(requests) == expected["requests"]
    if mode == "guarded":
        assert [request for request in requests if request["canary"]] == []
    assert "ok" not in {row["group"] for row in rows} or requests
