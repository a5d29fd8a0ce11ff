"""The commit of a shard: the one small file that makes an attempt's work count.

Work on a shard may be killed anywhere, done twice, or done by two drivers at once. Data files carry
the attempt's id in their names; the commit, created only if absent, names one complete set of them.
What no commit names did not happen.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from shards.errors import CapfiltError, DamagedFile
from shards.inputs.reader import ShardState
from shards.run.record import as_model, read_record, record_version, write_record
from shards.run.run import Run
from shards.schema import SCHEMA_VERSION, check_version
from shards.store import is_plain_name

_log = logging.getLogger(__name__)
_FROZEN = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)
_AT_A_TIME = 1_000  # commits whose bytes are held
_field_sets: dict[frozenset[str], set[str]] = {}

Addend = TypeVar("Addend", int, "TextCounts")


class FilesGone(CapfiltError, OSError):  # noqa: N818 - reads as what happened
    """Files that were published are not there any more, so that nothing may name them."""


class RunGone(CapfiltError, RuntimeError):  # noqa: N818 - reads as what happened
    """A run folder that was moved or deleted under those who work on it."""


class _Record(BaseModel):
    """A part of a commit, of which a run holds very many: equal sets of field names are one.

    Each set of its own would be larger than all that the record says.
    """

    model_config = _FROZEN

    def model_post_init(self, _context: Any) -> None:  # noqa: ANN401 - pydantic's
        """Share the set of the fields that were given."""
        names = self.__pydantic_fields_set__
        shared = _field_sets.setdefault(frozenset(names), names)
        object.__setattr__(self, "__pydantic_fields_set__", shared)


class TextCounts(_Record):
    """How many texts of one origin came in, and how many were kept."""

    given: int = Field(default=0, validation_alias="in", serialization_alias="in", ge=0)
    kept: int = Field(default=0, ge=0)

    def __add__(self, other: "TextCounts") -> "TextCounts":
        """Add up two shards' counts."""
        return TextCounts(given=self.given + other.given, kept=self.kept + other.kept)


class Counts(_Record):
    """What became of a shard's samples; `samples_in = kept + filtered + rejected`, always."""

    samples_in: int = Field(default=0, ge=0)
    kept: int = Field(default=0, ge=0)
    filtered: int = Field(default=0, ge=0)
    rejected: int = Field(default=0, ge=0)
    rejected_by_reason: dict[str, int] = {}
    text_reasons: dict[str, int] = {}
    texts: dict[str, TextCounts] = {}
    not_finite: int = Field(default=0, ge=0)
    # texts that captioners would not write; not written where there are none, as ever before
    refused: int = Field(default=0, ge=0, exclude_if=lambda texts: texts == 0)

    @model_validator(mode="after")
    def _conserve(self) -> "Counts":
        if self.samples_in != self.kept + self.filtered + self.rejected:
            raise ValueError(
                f"samples are lost: {self.samples_in} in, but {self.kept} kept + "
                f"{self.filtered} filtered + {self.rejected} rejected"
            )
        if self.rejected != sum(self.rejected_by_reason.values()):
            raise ValueError(
                f"{self.rejected} samples rejected, but by reason {self.rejected_by_reason}"
            )
        return self

    def __add__(self, other: "Counts") -> "Counts":
        """Add up two shards' counts."""
        return Counts(
            samples_in=self.samples_in + other.samples_in,
            kept=self.kept + other.kept,
            filtered=self.filtered + other.filtered,
            rejected=self.rejected + other.rejected,
            rejected_by_reason=_added(self.rejected_by_reason, other.rejected_by_reason, 0),
            text_reasons=_added(self.text_reasons, other.text_reasons, 0),
            texts=_added(self.texts, other.texts, TextCounts()),
            not_finite=self.not_finite + other.not_finite,
            refused=self.refused + other.refused,
        )


def _plain(name: str) -> str:
    if not is_plain_name(name):
        raise ValueError("not a plain name below the run folder")
    return name


class FileRecord(_Record):
    """One data file, as it must be found again; `rows` of a clean tar are its samples.

    `content_sha256` leaves out the models' numbers (see `shards.run.content`). Where a file has
    none, and in commits of older versions, there is none: its bytes are its content.
    """

    table: str
    name: Annotated[str, AfterValidator(_plain)]
    size_bytes: int
    sha256: str
    rows: int
    content_sha256: str | None = None


class InputRecord(_Record):
    """The input shard as it was read, all of it."""

    url: str
    size_bytes: int
    etag: str | None = None
    mtime: float | None = None
    sha256: str


class Commit(_Record):
    """All that an attempt on a shard came to."""

    schema_version: int = SCHEMA_VERSION
    shard: str
    fingerprint: str
    attempt: str
    input: InputRecord
    state: ShardState
    files: tuple[FileRecord, ...]
    counts: Counts
    environment: dict[str, Any]
    started: str
    ended: str

    def file(self, table: str) -> FileRecord | None:
        """Return the file of a table (`clean` too), or None where there is none."""
        return next((file for file in self.files if file.table == table), None)


def data_name(table: str, shard: str, attempt: str) -> str:
    """Name the data file of one table that one attempt writes."""
    suffix = "tar" if table == "clean" else "parquet"
    return f"data/{table}/{shard}-{attempt}.{suffix}"


def commit(run: Run, result: Commit) -> bool:
    """Make an attempt's work count, unless another's does already; say whether it does.

    A loser's own files are removed, and no others. Data files must be published before: whoever was
    frozen for long may wake to find them gone. So they are looked for before the commit, and after
    it once more, since no clock tells how long it took. Raises FilesGone, and leaves no commit; and
    RunGone, since a run folder that is deleted comes back with the next file that is written.
    """
    if not run.store.exists("run.json"):
        raise RunGone(
            f"{run.store.url()} has no run.json any more: the run folder was moved or deleted "
            f"while {result.shard} was worked on, which is not committed. Move it back, and run "
            "the same command again; or delete what is left there"
        )
    try:
        check_published(run, result.files)
        won = _claim(run, result)
        if won:
            check_published(run, result.files)
    except FilesGone:
        if _withdraw(run, result):
            raise
        won = False
    if not won:
        for file in result.files:
            if result.attempt in file.name:
                run.store.delete(file.name)
    return won


def check_published(run: Run, files: Iterable[FileRecord]) -> None:
    """Check that files are there, of their size; raises FilesGone."""
    for file in files:
        try:
            size_bytes = run.store.size_bytes(file.name)
        except FileNotFoundError:
            size_bytes = None
        if size_bytes != file.size_bytes:
            there = "it is gone" if size_bytes is None else f"found {size_bytes}"
            raise FilesGone(
                f"{run.store.url(file.name)} was published with {file.size_bytes} bytes, and "
                f"{there}; did a `capfilt gc` run meanwhile? Nothing is lost: it is done again"
            )


def _claim(run: Run, result: Commit) -> bool:
    name, data = commit_name(result.shard), write_record(result.model_dump(mode="json"))
    try:
        if run.store.create(name, data):
            return True
    except FileNotFoundError as error:  # what was written beside it went, as temporary files do
        raise FilesGone(f"{run.store.url(name)} could not be created: {error}") from error
    winner = read_commit(run, result.shard)
    if winner is None:
        # What stands there is torn. Two drivers that both mend it leave the last one's commit,
        # which names one complete set of files; the other's become orphans.
        run.store.put(name, data)
        winner = read_commit(run, result.shard)
    return winner is not None and winner.attempt == result.attempt


def _withdraw(run: Run, result: Commit) -> bool:
    """Take back an attempt's own commit, if it is there; say whether the shard is pending now.

    Whoever has read it meanwhile does not stand on it: `verify` names the files that are gone.
    """
    stands = read_commit(run, result.shard)
    if stands is not None and stands.attempt == result.attempt:
        run.store.delete(commit_name(result.shard))
        return True
    return stands is None


def read_commit(run: Run, shard: str) -> Commit | None:
    """Return a shard's commit, or None if there is none yet or what is there is torn.

    Raises SchemaError for one that a newer version wrote.
    """
    try:
        return _parsed(run, shard, run.store.read(commit_name(shard)))
    except FileNotFoundError:
        return None


def read_commits(run: Run) -> dict[str, Commit]:
    """Return all commits of the run's shards by SHARD, in the order of the list.

    Each is read itself, for who must know what stands there; `read_committed` needs few reads.
    """
    there = set(run.store.list("commits"))
    shards = [shard for shard in run.shards if commit_name(shard) in there]
    return {done.shard: done for done in parse_commits(run, shards)}


def parse_commits(run: Run, shards: Sequence[str]) -> Iterator[Commit]:
    """Read the commits of these shards, in their order; what is torn or gone is left out."""
    for first in range(0, len(shards), _AT_A_TIME):
        names = {commit_name(shard): shard for shard in shards[first : first + _AT_A_TIME]}
        for name, data in run.store.read_many(list(names)).items():
            done = _parsed(run, names[name], data)
            if done is not None:
                yield done


def total_counts(counts: Iterable[Counts]) -> Counts:
    """Add up the counts of many shards."""
    return sum(counts, Counts())


def commit_name(shard: str) -> str:
    """Name the commit of a shard."""
    return f"commits/{shard}.json"


def _parsed(run: Run, shard: str, data: bytes) -> Commit | None:
    where = run.store.url(commit_name(shard))
    try:
        record = read_record(data, where)
        check_version(record_version(record, "schema_version", where), where)
        done = as_model(Commit, record, where)
        if done.shard != shard:
            raise DamagedFile(where, f"the commit of shard {shard}", done.shard)
    except DamagedFile as error:
        _log.warning("the commit of shard %s is torn and counts as absent: %s", shard, error)
        return None
    return done


def _added(left: dict[str, Addend], right: dict[str, Addend], zero: Addend) -> dict[str, Addend]:
    return {key: left.get(key, zero) + right.get(key, zero) for key in sorted({*left, *right})}
