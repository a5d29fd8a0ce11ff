"""Small tars and small runs, made on the spot, on local disk and in fsspec's memory."""

import io
import tarfile
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from shards.inputs.listing import list_inputs
from shards.inputs.reader import RawSample, ShardReader, open_shard
from shards.run.attempt import start_attempt
from shards.run.commit import Commit, FileRecord, InputRecord, commit
from shards.run.run import Run
from shards.schema import DecisionRow, SampleRow, TextRow
from shards.store import Store
from shards.writer import CleanSample, ShardWriter

Members = Iterable[tuple[str, bytes]]
MakeRun = Callable[..., Run]
DoWork = Callable[[Run, str], Commit]


@pytest.fixture
def tar_bytes() -> Callable[..., bytes]:
    """Make a tar from (name, bytes) pairs."""

    def make(members: Members, format: int = tarfile.USTAR_FORMAT) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return buffer.getvalue()

    return make


@pytest.fixture
def pairs() -> Callable[[int], list[tuple[str, bytes]]]:
    """Give the members of `count` samples, each of an image, a text and a sidecar."""

    def make(count: int) -> list[tuple[str, bytes]]:
        members = []
        for number in range(count):
            members.append((f"k{number:03}.jpg", bytes([number % 251]) * (700 + 13 * number)))
            members.append((f"k{number:03}.txt", f"text {number}".encode()))
            members.append((f"k{number:03}.json", b'{"n": %d}' % number))
        return members

    return make


@pytest.fixture(params=["local", "memory"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the URL of a place that does not exist yet, on each kind of store."""
    if request.param == "local":
        return str(tmp_path / "place")
    return f"memory://{uuid.uuid4().hex}/place"


def _rows(sample: RawSample) -> tuple[SampleRow, list[TextRow], list[DecisionRow]]:
    """Make the rows of a sample by rules that leave some of each outcome."""
    row: SampleRow = {"index": sample.index, "key": sample.key, "status": "ok"}
    if sample.reason or sample.index % 5 == 4:
        return {**row, "status": "rejected", "reason": sample.reason or "image_blank"}, [], []
    texts: list[TextRow] = []
    decisions: list[DecisionRow] = []
    for number, origin in enumerate(["web", "synthetic"]):
        itm = ((sample.index * 7 + number * 3) % 11) / 10
        keep = itm >= 0.5
        text: TextRow = {"text_no": number, "origin": origin, "text": f"{origin} {sample.key}"}
        texts.append({**text, "itm": itm, "itc": 0.25})
        reason = "kept" if keep else "itm_below_threshold"
        decisions.append({"text_no": number, "keep": keep, "reason": reason})
    return row, texts, decisions


def _clean(
    sample: RawSample, texts: list[TextRow], decisions: list[DecisionRow], run: Run
) -> CleanSample | None:
    kept = [t for t, d in zip(texts, decisions, strict=True) if d["keep"]]
    if not kept:
        return None
    assert sample.image_ext
    assert sample.image
    listed = [{key: text[key] for key in ("text", "origin", "itm", "itc")} for text in kept]
    record = {"key": sample.key, "texts": listed, "run": run.fingerprint}
    return CleanSample(sample.key, sample.image_ext, sample.image, record, kept[0]["text"])


def work(run: Run, shard: str) -> Commit:
    """Do one attempt on a shard, all but the commit."""
    listed = next(item for item in run.inputs if item.shard == shard)
    attempt = start_attempt(run, shard)
    with open_shard(listed.url) as file, ShardWriter(run.store, shard, attempt) as writer:
        reader = ShardReader(file)
        for sample in reader:
            row, texts, decisions = _rows(sample)
            writer.add(row, texts, decisions, _clean(sample, texts, decisions, run))
        files: list[FileRecord] = writer.finish()
    return Commit(
        shard=shard,
        fingerprint=run.fingerprint,
        attempt=attempt,
        input=InputRecord(url=listed.url, size_bytes=reader.bytes_read, sha256=reader.sha256),
        state=reader.state,
        files=tuple(files),
        counts=writer.counts,
        environment={"device": "cpu"},
        started="2026-01-01T00:00:00+00:00",
        ended="2026-01-01T00:00:01+00:00",
    )


@pytest.fixture
def do_work() -> DoWork:
    return work


@pytest.fixture
def make_run(tmp_path: Path, tar_bytes: Any, pairs: Any) -> MakeRun:
    """Make a run over tars of 12 samples each, the last one cut; all committed, or none."""

    def make(url: str, shards: int = 3, committed: bool = True) -> Run:
        folder = tmp_path / "web"
        folder.mkdir(exist_ok=True)
        for number in range(shards):
            data = tar_bytes(pairs(12))
            if number == shards - 1:
                data = data[: len(data) // 3 + 100]
            (folder / f"{number:05}.tar").write_bytes(data)
        identity = {"seed": 0, "judge": {"threshold": {"web": 0.5}}}
        run = Run.create(
            Store(url), "seed: 0\n", identity, {"device": "cpu"}, list_inputs([str(folder)])
        )
        for shard in run.shards if committed else []:
            assert commit(run, work(run, shard))
        return run

    return make
