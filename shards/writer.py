"""The writer of one attempt on one shard: three tables and the clean tar, counted as they go.

Rows leave memory in row groups. Files are staged, published under names that carry the attempt's
id, and read back before they count as written.
"""

import hashlib
import io
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shards.errors import CapfiltError
from shards.files.tar_member import tar_member
from shards.naming import encode_name
from shards.reasons import DecisionReason
from shards.run.commit import (
    Commit,
    Counts,
    FileRecord,
    FilesGone,
    TextCounts,
    commit,
    data_name,
)
from shards.run.content import ContentHash
from shards.run.record import canonical_json
from shards.run.scoring.score_set import ScoreSet, texts_content
from shards.schema import (
    ALL_SCHEMAS,
    SCHEMAS,
    SCORES,
    DecisionRow,
    SampleRow,
    ScoreRow,
    TextRow,
    arrow_rows,
)
from shards.store import Store

_ROWS_PER_GROUP = 1_000
_TABLE_ROWS_PER_GROUP = 10_000  # whoever wants one shard of a file that many share reads so many


class WriteCheckError(CapfiltError, OSError):
    """A file that does not read back as it was written."""


@dataclass(frozen=True, slots=True)
class CleanSample:
    """One kept sample of the clean tar; `key` is the input's, `record` becomes KEY.json.

    `sha256` is the image's, by whoever has hashed it already.
    """

    key: str
    ext: str
    image: bytes
    record: Mapping[str, Any]
    text: str
    sha256: str | None = None


class ShardWriter:
    """Takes the samples of one shard in order; `finish` or `abort` ends it.

    Leaving its `with` block without `finish` aborts. In a run that only screens there are no texts,
    and what is not rejected is kept.
    """

    def __init__(
        self, store: Store, shard: str, attempt: str, *, only_screens: bool = False
    ) -> None:
        self._store, self._shard, self._attempt = store, shard, attempt
        self._closing = ExitStack()
        self._folder = self._closing.enter_context(store.staging())
        self._tables = {name: TableFile(self._folder / name, name) for name in SCHEMAS}
        self._clean: CleanFile | None = None
        self._published: list[str] = []
        self._tally = _Tally(only_screens)

    def __enter__(self) -> "ShardWriter":
        """Return the writer itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Abort, unless finished."""
        self.abort()

    @property
    def counts(self) -> Counts:
        """What was added so far."""
        return self._tally.counts()

    def add(
        self,
        sample: SampleRow,
        texts: Sequence[TextRow],
        decisions: Sequence[DecisionRow],
        clean: CleanSample | None = None,
        scores: Sequence[ScoreRow] = (),
    ) -> None:
        """Add one sample; `shard`, and `index` of texts, decisions and scores, are filled in.

        Decisions stand in the order of the texts, one each; `scores` are those that are no columns
        of the texts, and a shard without any has no such table. `clean` is given for kept samples,
        unless the run writes no clean tars. Raises SchemaError for an unknown column.
        """
        self._tally.add(sample, texts, decisions)
        sample_key = {"shard": self._shard, "index": sample["index"]}
        self._tables["samples"].add([{**sample, **sample_key}])
        self._tables["texts"].add([{**text, **sample_key} for text in texts])
        self._tables["decisions"].add([{**decision, **sample_key} for decision in decisions])
        if scores:
            if "scores" not in self._tables:
                with _staged_file(self._folder / "scores") as path:
                    self._tables["scores"] = TableFile(path, "scores")
            self._tables["scores"].add([{**score, **sample_key} for score in scores])
        if clean is not None:
            if self._clean is None:
                with _staged_file(self._folder / "clean") as path:
                    self._clean = CleanFile(path, self._shard)
            self._clean.add(clean)

    def finish(self) -> list[FileRecord]:
        """Publish the files, read them back, and give their records, for the commit."""
        files: dict[str, TableFile | CleanFile] = {**self._tables}
        if self._clean is not None:
            files["clean"] = self._clean
        records: list[FileRecord] = []
        for table, file in files.items():
            name = data_name(table, self._shard, self._attempt)
            self._published.append(name)
            record = publish_file(self._store, file, table, name)
            if table == "scores":  # without the numbers, they are the texts
                record = record.model_copy(update={"content_sha256": texts_content(records)})
            records.append(record)
        self._published = []  # they are the commit's now, no longer ours to remove
        self._closing.close()
        return records

    def abort(self) -> None:
        """Remove what this attempt has written; nothing happens after `finish`."""
        for file in (*self._tables.values(), self._clean):
            if file is not None:
                file.sink.discard()
        self._closing.close()
        published, self._published = self._published, []
        for name in published:
            self._store.delete(name)


class _HashingFile(io.RawIOBase):
    """A local file that knows the size and hash of what was written to it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("xb")
        self._sha256 = hashlib.sha256()
        self._discarded = False
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401 - any buffer
        view = memoryview(data).cast("B")
        if self._discarded:
            return len(view)
        self._file.write(view)
        self._sha256.update(view)
        self.size_bytes += len(view)
        return len(view)

    def tell(self) -> int:
        return self.size_bytes

    def discard(self) -> None:
        """Take no more: a writer that is dropped still wants to write its footer somewhere."""
        self._discarded = True
        with suppress(OSError):  # a full disk refuses what was buffered, too
            self._file.close()

    def close(self) -> None:
        if not self._discarded:
            self._file.close()
        super().close()


class TableFile:
    """One Parquet file, written in row groups."""

    def __init__(self, path: Path, table: str) -> None:
        self.path, self.rows = path, 0
        self.sink = _HashingFile(path)
        self._schema = ALL_SCHEMAS[table]
        self._waiting: list[Mapping[str, Any]] = []
        self._content = ContentHash() if table == "texts" else None
        self._writer = pq.ParquetWriter(
            self.sink, self._schema, compression="zstd", write_page_checksum=True
        )

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take rows; they leave memory in row groups."""
        if self._content is not None:
            for row in rows:
                self._content.add_text(row)
        self._waiting += rows
        self.rows += len(rows)
        if len(self._waiting) >= _ROWS_PER_GROUP:
            self._flush()

    @property
    def content_sha256(self) -> str | None:
        """Hash of the rows without the models' numbers; None where the table has none of these."""
        return None if self._content is None else self._content.hexdigest()

    def add_table(self, table: pa.Table) -> None:
        """Write decisions that stand in a table already, in row groups of a few shards."""
        self._flush()
        self.rows += len(table)
        self._writer.write_table(table, _TABLE_ROWS_PER_GROUP)

    def close(self) -> None:
        """Write the footer."""
        self._flush()
        self._writer.close()
        self.sink.close()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(arrow_rows(self._waiting, self._schema))
        self._waiting = []


class CleanFile:
    """One WebDataset tar whose bytes depend on its samples alone."""

    def __init__(self, path: Path, shard: str) -> None:
        self.path, self.rows = path, 0
        self.sink = _HashingFile(path)
        self._shard, self._content = shard, ContentHash()

    def add(self, sample: CleanSample) -> None:
        """Write one sample."""
        key = f"{self._shard}/{encode_name(sample.key)}"
        members = (
            *tar_member(f"{key}.{sample.ext}", sample.image),
            *tar_member(f"{key}.json", canonical_json(sample.record)),
            *tar_member(f"{key}.txt", sample.text.encode()),
        )
        self.sink.write(b"".join(members))
        sha256 = sample.sha256 or hashlib.sha256(sample.image).hexdigest()
        self._content.add_clean(key, sample.ext, sha256, sample.record, sample.text)
        self.rows += 1

    @property
    def content_sha256(self) -> str:
        """Hash of the samples without the models' numbers."""
        return self._content.hexdigest()

    def close(self) -> None:
        """Write the end marker."""
        end = 2 * tarfile.BLOCKSIZE
        self.sink.write(bytes(end + -(self.sink.size_bytes + end) % tarfile.RECORDSIZE))
        self.sink.close()


class _Tally:
    """Counts of what was added."""

    def __init__(self, only_screens: bool) -> None:
        self._only_screens = only_screens
        self._outcomes: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._text_reasons: Counter[str] = Counter()
        self._given: Counter[str] = Counter()
        self._kept: Counter[str] = Counter()
        self._not_finite = self._refused = 0

    def add(
        self, sample: SampleRow, texts: Sequence[TextRow], decisions: Sequence[DecisionRow]
    ) -> None:
        if sample["status"] == "rejected":
            if texts or not sample.get("reason"):
                raise ValueError("a rejected sample has a reason and no texts")
            self._outcomes["rejected"] += 1
            self._rejected[str(sample["reason"])] += 1
            return
        is_kept = self._only_screens or any(d["keep"] for d in decisions)
        self._outcomes["kept" if is_kept else "filtered"] += 1
        if sample.get("text_reason"):
            self._text_reasons[str(sample["text_reason"])] += 1
        for text, decision in zip(texts, decisions, strict=True):
            self._given[text["origin"]] += 1
            self._kept[text["origin"]] += decision["keep"]
            self._not_finite += decision["reason"] == DecisionReason.SCORE_NOT_FINITE
            self._refused += decision["reason"] == DecisionReason.CAPTION_REFUSED

    def counts(self) -> Counts:
        return Counts(
            samples_in=self._outcomes.total(),
            kept=self._outcomes["kept"],
            filtered=self._outcomes["filtered"],
            rejected=self._outcomes["rejected"],
            rejected_by_reason=dict(sorted(self._rejected.items())),
            text_reasons=dict(sorted(self._text_reasons.items())),
            texts={
                origin: TextCounts(given=given, kept=self._kept[origin])
                for origin, given in sorted(self._given.items())
            },
            not_finite=self._not_finite,
            refused=self._refused,
        )


def publish_file(store: Store, file: TableFile | CleanFile, table: str, name: str) -> FileRecord:
    """Close a staged file, publish it under `name`, read it back, and give its record.

    Raises WriteCheckError if it does not read back as it was written, and FilesGone.
    """
    file.close()
    with _staged_file(file.path) as path:
        store.publish(path, name)
    record = FileRecord(
        table=table,
        name=name,
        size_bytes=file.sink.size_bytes,
        sha256=file.sink.sha256,
        rows=file.rows,
        content_sha256=file.content_sha256,
    )
    with _staged_file(Path(name)):
        _check_written(store, record)
    return record


def commit_scores(
    scores: ScoreSet,
    facts: Commit,
    table: pa.Table,
    attempt: str,
    environment: Mapping[str, Any],
    started: str,
) -> bool:
    """Write the scores of one shard's texts, and commit them unless another did; say whether.

    `facts` is the run's own commit of the shard, whose texts they are; `table` is of SCORES.
    """
    with scores.record.store.staging() as folder:
        file = TableFile(folder / f"{facts.shard}.parquet", "scores")
        file.add_table(table.cast(SCORES))
        name = data_name("scores", facts.shard, attempt)
        written = publish_file(scores.record.store, file, "scores", name)
    written = written.model_copy(update={"content_sha256": texts_content(facts.files)})
    changed = {
        "fingerprint": scores.record.fingerprint,
        "attempt": attempt,
        "files": (written,),
        "environment": dict(environment),
        "started": started,
        "ended": datetime.now(UTC).isoformat(),
    }
    return commit(scores.record, facts.model_copy(update=changed))


@contextmanager
def _staged_file(path: Path) -> Iterator[Path]:
    """Say that a file or its folder has gone: whoever was frozen for long may wake to that."""
    try:
        yield path
    except FileNotFoundError as error:
        raise FilesGone(f"{path} went away before it was committed: {error}") from error


def _check_written(store: Store, record: FileRecord) -> None:
    sha256 = store.sha256(record.name)
    size_bytes = store.size_bytes(record.name)
    if (size_bytes, sha256) != (record.size_bytes, record.sha256):
        raise WriteCheckError(
            f"{store.url(record.name)} does not read back as written: expected "
            f"{record.size_bytes} bytes, sha256 {record.sha256}; found {size_bytes}, {sha256}"
        )
    if record.table != "clean":
        with store.open(record.name) as file:
            rows = pq.read_metadata(file).num_rows
        if rows != record.rows:
            raise WriteCheckError(f"{record.name}: expected {record.rows} rows, found {rows}")
