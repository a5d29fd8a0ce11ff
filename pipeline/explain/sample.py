"""Explain one sample: its facts, every text with its scores, and what each view decides and why."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.clean.export import EXTENSIONS
from shards.errors import DamagedFile, UsageError
from shards.inputs.names import stem
from shards.naming import encode_name
from shards.query.query import connect
from shards.run.attempt import read_quarantined
from shards.run.commit import read_commit
from shards.run.data import read_data, read_shard
from shards.run.run import Run
from shards.run.scoring.score_set import scores_of_shard
from shards.run.snapshot import SnapshotError, SnapshotShard, as_snapshot_shard
from shards.run.view import (
    OWN,
    THRESHOLDS_ALONE,
    Basis,
    ViewError,
    open_view,
    own_score,
    view_names,
)
from shards.schema import SampleRow, SchemaError

_SCORES = ["text_no", "origin", "author", "text", "itm", "itm_logit", "itc", "logprob", "tokens"]
_MEMBERS = {*EXTENSIONS.values(), "json", "txt"}
_LOOKED_AT = 20  # shards, for an example of an address
_SAMPLES = "SELECT * FROM samples WHERE list_contains(?, index) ORDER BY index"
_NEAREST = (
    "SELECT DISTINCT key, jaro_winkler_similarity(key, ?) AS nearness FROM samples "
    "WHERE key IS NOT NULL ORDER BY nearness DESC, key LIMIT 3"
)


class NoSuchSample(UsageError):  # noqa: N818 - reads as what happened
    """An address that leads to no sample; the message names the nearest."""


@dataclass(frozen=True, slots=True)
class _ShardView:
    """A shard as one view has it; `fault` says why the view cannot be read."""

    name: str
    thresholds: dict[str, float]
    shard: SnapshotShard | None
    fault: str | None = None
    basis: Basis = THRESHOLDS_ALONE


def explain(run: Run, address: str) -> dict[str, Any]:
    """Explain the samples (more than one where keys came twice) at SHARD/KEY, finished run or not.

    SHARD is the run's name of it, or its file, in its folder or with its path; KEY is the input's,
    or as the clean tar has it. Raises NoSuchSample, SchemaError.
    """
    shard, key = _parse_address(run, address)
    done = read_commit(run, shard)
    if done is None:
        quarantined = shard in read_quarantined(run)
        pending = "is still pending: not cleaned yet"
        state = "was put aside (see quarantine/)" if quarantined else pending
        raise NoSuchSample(f"shard {shard} {state}")
    facts = as_snapshot_shard(done)
    samples = _samples(run, facts, key)
    thresholds = run.identity.get("judge", {}).get("threshold", {})
    own = _ShardView(OWN, thresholds, facts, basis=Basis(own_score(run)))
    views = [own, *_views(run, shard)]
    facts = replace(facts, files=(*facts.files, *scores_of_shard(run, done)))
    return {
        "run": run.store.url(),
        "shard": shard,
        "key": samples[0]["key"],
        "state": facts.state.model_dump(mode="json"),
        "views": [
            {"name": view.name, "thresholds": view.thresholds, "fault": view.fault}
            | view.basis.as_json()
            for view in views
        ],
        "samples": [_explained(run, facts, sample, views) for sample in samples],
    }


def _parse_address(run: Run, address: str) -> tuple[str, str]:
    shard, slash, key = address.partition("/")
    if key and shard in run.shards:
        return shard, key
    if (by_file := _by_file(run, address)) is not None:
        return by_file
    if not (shard and slash and key):
        raise NoSuchSample(
            f"{address!r} names no sample; expected SHARD/KEY{_example(run, address)}"
        )
    nearest = get_close_matches(shard, run.shards, n=3, cutoff=0) or run.shards[:3]
    raise NoSuchSample(
        f"{run.store.url()} has no shard {shard!r}; the nearest: {', '.join(nearest)}"
    )


def _example(run: Run, named: str) -> str:
    """Say what an address looks like: with the shard or the key that was named alone, if it can."""
    example = ""
    for shard in ([named] if named in run.shards else run.shards)[:_LOOKED_AT]:
        if (done := read_commit(run, shard)) is None:
            continue
        rows = read_shard(run, as_snapshot_shard(done), "samples", ["key"])["key"].to_pylist()
        keys = list(filter(None, rows))
        if named in keys:
            return f", such as {shard}/{named}"
        example = example or (f", such as {shard}/{keys[0]}" if keys else "")
    return example


def _by_file(run: Run, address: str) -> tuple[str, str] | None:
    """Read an address whose shard is named as its file is: in its folder, or with its path."""
    for slash in re.finditer("/", address):
        file, key = address[: slash.start()], address[slash.end() :]
        for shard in run.inputs if file and key else ():
            if shard.shard == encode_name(stem(file)) or f"/{shard.url}".endswith(f"/{file}"):
                return shard.shard, key
    return None


def _samples(run: Run, shard: SnapshotShard, key: str) -> list[SampleRow]:
    """Find the samples of a key; as the clean tar writes it, with or without an extension, too."""
    keys = read_shard(run, shard, "samples", ["index", "key"]).to_pylist()
    base, _, extension = key.rpartition(".")
    encoded = base if extension in _MEMBERS else key
    indices = [row["index"] for row in keys if row["key"] == key] or [
        row["index"] for row in keys if row["key"] and encode_name(row["key"]) == encoded
    ]
    with connect(run, [shard], ["samples"]) as connection:
        if not indices:
            nearest = connection.execute(_NEAREST, [key]).fetchall()
            names = ", ".join(repr(name) for name, _ in nearest) or "none: it has no keys"
            raise NoSuchSample(f"shard {shard.shard} has no key {key!r}; the nearest: {names}")
        answer = connection.execute(_SAMPLES, [indices])
        columns = [column[0] for column in answer.description or ()]
        rows: list[Any] = [dict(zip(columns, row, strict=True)) for row in answer.fetchall()]
        return rows


def _views(run: Run, shard: str) -> Iterator[_ShardView]:
    for name in view_names(run):
        try:
            view = open_view(run, name)
        except (ViewError, SnapshotError, SchemaError, DamagedFile) as error:
            yield _ShardView(name, {}, None, str(error))
            continue
        listed = next((judged for judged in view.shards if judged.shard == shard), None)
        fault = None if listed else "its snapshot was made before this shard was done"
        yield _ShardView(name, view.thresholds, listed, fault, view.basis)


def _explained(
    run: Run, facts: SnapshotShard, sample: SampleRow, views: Sequence[_ShardView]
) -> dict[str, Any]:
    """Join a sample's facts with its texts, and those with the decisions of each view."""
    texts = _rows_of(run, facts, "texts", sample["index"], _SCORES)
    added = _added_scores(run, facts, sample["index"])
    for text in texts:
        text["scores"] = added.get(text["text_no"], {})
        text["decisions"] = {}
    for view in views:
        if view.shard is None:
            continue
        columns = ["text_no", "keep", "reason"]
        rows = _rows_of(run, view.shard, "decisions", sample["index"], columns)
        decisions = {row.pop("text_no"): row for row in rows}
        if missing := {text["text_no"] for text in texts} - decisions.keys():
            expected = f"a decision on each text of sample {sample['index']}"
            where = run.store.url(view.shard.file("decisions").name)
            raise DamagedFile(where, expected, f"none on {sorted(missing)}")
        for text in texts:
            threshold = {"threshold": view.thresholds.get(text["origin"])}
            text["decisions"][view.name] = decisions[text["text_no"]] | threshold
    clean = {
        view.name: _clean_member(run, view.shard, sample)
        for view in views
        if view.shard is not None and any(t["decisions"][view.name]["keep"] for t in texts)
    }
    members = {name: member for name, member in clean.items() if member}
    return sample | {"texts": texts, "clean": members}


def _added_scores(run: Run, facts: SnapshotShard, index: int) -> dict[int, dict[str, float]]:
    """Read the scores of a sample's texts that were made later or elsewhere, by SET.SCORE."""
    scores: dict[int, dict[str, float]] = {}
    for file in facts.files:
        if file.table == "scores":
            columns = ["text_no", "scorer", "name", "value"]
            for row in _of_sample(read_data(run, file, ["index", *columns]), index):
                of_text = scores.setdefault(row["text_no"], {})
                of_text[f"{row['scorer']}.{row['name']}"] = row["value"]
    return scores


def _clean_member(run: Run, shard: SnapshotShard, sample: SampleRow) -> dict[str, str] | None:
    """Return which tar holds a kept sample's clean form, and under which name."""
    tar = next((file for file in shard.files if file.table == "clean"), None)
    if tar is None:
        return None
    as_jpeg = run.identity.get("write", {}).get("images") == "jpeg"
    extension = "jpg" if as_jpeg else EXTENSIONS.get(sample["format"] or "", "*")
    member = f"{shard.shard}/{encode_name(cast(str, sample['key']))}.{extension}"
    return {"tar": run.store.url(tar.name), "member": member}


def _rows_of(
    run: Run, shard: SnapshotShard, table: str, index: int, columns: list[str]
) -> list[Any]:
    return _of_sample(read_shard(run, shard, table, ["index", *columns]), index)


def _of_sample(table: pa.Table, index: int) -> list[Any]:
    rows: list[Any] = table.filter(pc.equal(table["index"], index)).drop("index").to_pylist()
    return rows
