"""One committed shard, checked: its files against its commit, and their rows against each other."""

import hashlib
import json
import struct
from collections.abc import Iterator

import pyarrow as pa

from shards.errors import DamagedFile
from shards.inputs.reader import RawSample, ShardReader, State
from shards.naming import encode_name
from shards.run.commit import Commit, FileRecord, data_name
from shards.run.content import ContentHash
from shards.run.data import read_data
from shards.run.run import Run
from shards.run.scoring.score_set import own_scorers
from shards.run.verify.problem import Problem
from shards.run.verify.rules import (
    SAMPLE_COLUMNS,
    complaints,
    kept_texts,
    recount,
    score_complaints,
)
from shards.schema import SCHEMAS, SchemaError, TextRow


def check_commit(run: Run, done: Commit, input_bytes: int) -> Iterator[Problem]:
    """Compare a commit with its run, its files with the commit, and the files with each other.

    `input_bytes` is the size of the input shard as it was listed.
    """
    commit_name = f"commits/{done.shard}.json"
    if done.fingerprint != run.fingerprint:
        yield Problem(commit_name, "fingerprint", run.fingerprint, done.fingerprint)
    if done.input.size_bytes != input_bytes:
        sizes = (str(input_bytes), str(done.input.size_bytes))
        yield Problem(commit_name, "bytes of the input as read", *sizes)
    files = {file.table: file for file in done.files}
    names = {table: data_name(table, done.shard, done.attempt) for table in files}
    as_named = all(file.name == names[table] for table, file in files.items())
    if not as_named or len(files) != len(done.files) or not SCHEMAS.keys() <= files.keys():
        yield Problem(commit_name, "its files are not one per table under this attempt's names")
        return
    faults = [fault for file in done.files for fault in check_file(run, file)]
    yield from faults
    if not faults:
        yield from _content_problems(run, done, files)


def check_file(run: Run, file: FileRecord) -> Iterator[Problem]:
    """Compare a file, read whole, with its record."""
    try:
        size_bytes = run.store.size_bytes(file.name)
        if size_bytes != file.size_bytes:
            yield Problem(file.name, "size in bytes", str(file.size_bytes), str(size_bytes))
            return
        digest = run.store.sha256(file.name)
    except FileNotFoundError:
        yield Problem(file.name, "the file is gone")
        return
    if digest != file.sha256:
        yield Problem(file.name, "sha256", file.sha256, digest)


def _content_problems(run: Run, done: Commit, files: dict[str, FileRecord]) -> Iterator[Problem]:
    commit_name = f"commits/{done.shard}.json"
    try:
        tables = {table: read_checked(run, files[table]) for table in SCHEMAS}
    except SchemaError as error:
        yield Problem(commit_name, str(error))
        return
    except DamagedFile as error:
        yield Problem.of(commit_name, error)
        return
    for table, read in tables.items():
        if files[table].rows != len(read):
            yield Problem(files[table].name, "rows", str(files[table].rows), str(len(read)))
    yield from check_content(files["texts"], tables["texts"])
    faults = list(complaints(done.shard, **tables, only_screened=run.only_screens))
    yield from (Problem(commit_name, fault) for fault in faults)
    if faults:
        return
    yield from _score_problems(run, done, files.get("scores"), tables["texts"])
    counted = recount(**tables, screened=frozenset() if run.only_screens else None)
    if counted != done.counts:
        yield Problem(
            commit_name, "counts", counted.model_dump_json(), done.counts.model_dump_json()
        )
    expected = expected_clean(done.shard, tables)
    if "clean" in files:
        yield from check_clean(run, files["clean"], expected)
    elif expected and run.identity.get("write", {}).get("clean") != "none":
        yield Problem(commit_name, "samples were kept, but it names no clean tar")


def _score_problems(
    run: Run, done: Commit, file: FileRecord | None, texts: pa.Table
) -> Iterator[Problem]:
    """Check the scores that are no columns of the texts: each text has each, if there are any."""
    scorers = own_scorers(run)
    if file is None:
        if scorers and len(texts):
            yield Problem(f"commits/{done.shard}.json", "it names no table of scores")
        return
    try:
        rows = read_data(run, file)
    except SchemaError as error:
        yield Problem(file.name, str(error))
        return
    except DamagedFile as error:
        yield Problem.of(file.name, error)
        return
    expected = len(texts) * sum(map(len, scorers.values()))
    if not len(rows) == file.rows == expected:
        yield Problem(file.name, "rows", str(expected), str(len(rows)))
    faults = score_complaints(scorers, done.shard, rows, texts)
    yield from (Problem(file.name, what) for what in faults)


def check_content(file: FileRecord, texts: pa.Table) -> Iterator[Problem]:
    """Compare the hash of a table of texts, without the models' numbers, with its record."""
    content = ContentHash()
    for row in texts.to_pylist():
        content.add_text(row)
    yield from _same_content(file, content)


def _same_content(file: FileRecord, content: ContentHash) -> Iterator[Problem]:
    if file.content_sha256 not in (None, content.hexdigest()):
        yield Problem(file.name, "hash of content", file.content_sha256, content.hexdigest())


def read_checked(run: Run, file: FileRecord) -> pa.Table:
    """Read a table, of samples only what the rules are about.

    Raises SchemaError, DamagedFile.
    """
    columns = SAMPLE_COLUMNS if file.table == "samples" else None
    return read_data(run, file, columns)


def expected_clean(shard: str, tables: dict[str, pa.Table]) -> dict[str, list[TextRow]]:
    """Return the kept texts by the key in the clean tar, in the order of the samples."""
    keys = tables["samples"]["key"].to_pylist()
    kept = kept_texts(tables["texts"], tables["decisions"])
    return {f"{shard}/{encode_name(keys[index])}": kept[index] for index in sorted(kept)}


def check_clean(
    run: Run, file: FileRecord, expected: dict[str, list[TextRow]]
) -> Iterator[Problem]:
    """Compare the clean tar, read strictly, with the kept samples and their texts."""
    keys, content = list[str](), ContentHash()
    with run.store.open(file.name) as opened:
        reader = ShardReader(opened)
        for row in reader:
            keys.append(row.key)
            if row.key not in expected:
                continue
            if _fits(row, expected[row.key], run.fingerprint):
                _add_clean(content, row)
            else:
                yield Problem(file.name, f"{row.key} is not the kept sample of the tables")
    if reader.state.state is not State.COMPLETE:
        yield Problem(file.name, "not a whole tar", State.COMPLETE, reader.state.state)
    if keys != list(expected):
        yield Problem(file.name, "samples", f"{len(expected)}, those kept", f"{len(keys)}")
    if file.rows != len(keys):
        yield Problem(file.name, "rows", str(file.rows), str(len(keys)))
    yield from _same_content(file, content)


def _add_clean(content: ContentHash, row: RawSample) -> None:
    record, text = json.loads(row.meta or b""), (row.text or b"").decode("utf-8", "replace")
    sha256 = hashlib.sha256(row.image or b"").hexdigest()
    content.add_clean(row.key, row.image_ext or "", sha256, record, text)


def _fits(row: RawSample, texts: list[TextRow], run: str) -> bool:
    """Check whether a sample of the clean tar has an image, and just the kept texts."""
    if row.image is None or row.text is None or row.meta is None:
        return False
    try:
        record = json.loads(row.meta)
        listed = [{**text, **_scores(text)} for text in record["texts"]]
        same_texts = listed == texts and record["run"] == run
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
    return same_texts and row.text.decode("utf-8", "replace") in {text["text"] for text in texts}


def _scores(text: TextRow) -> dict[str, float | None]:
    """Return a text's scores as the table's float32 holds them."""
    return {
        name: None if text[name] is None else struct.unpack("f", struct.pack("f", text[name]))[0]
        for name in ("itm", "itc")
    }
