"""The run folder: one cleaning of a fixed list of shards, under one fingerprint.

`run.json` is written first and only if absent, so it decides which recipe and which list own the
folder; a creation that was killed half-way is finished by the next one with the same.
"""

import hashlib
import io
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shards.errors import DamagedFile, UsageError
from shards.inputs.finding.near import runs_near
from shards.inputs.listing import InputMismatch, compare_lists, list_digest
from shards.inputs.shard import InputShard
from shards.run.record import canonical_json, read_record, record_version, write_record
from shards.schema import as_damage, read_bytes
from shards.store import Store

RUN_VERSION = 1
SCREEN = "screen"  # the kind of a run that stops before any model
_INPUT = pa.schema(
    [
        pa.field("url", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("etag", pa.string()),
        pa.field("mtime", pa.float64()),
        pa.field("kind", pa.string()),
        pa.field("first", pa.int64()),
        pa.field("count", pa.int64()),
        pa.field("image_column", pa.string()),
        pa.field("text_column", pa.string()),
        pa.field("files_sha256", pa.string()),
    ]
)
FILES = "files.parquet"  # which files are in which virtual shard


_FIELDS = {"fingerprint": str, "identity": dict, "about": dict, "inputs_sha256": str}


class NotARun(UsageError):  # noqa: N818 - reads as what happened
    """A folder that holds something, but no run that this code can read."""


class RunMismatch(UsageError):  # noqa: N818 - reads as what happened
    """The folder holds a run of another recipe."""


@dataclass(frozen=True, slots=True)
class Run:
    """An open run; `identity` is what changes the output, `about` what was merely so.

    `recipe_yaml` is what `recipe.yaml` should hold; None in runs that older versions made.
    """

    store: Store
    fingerprint: str
    identity: dict[str, Any]
    about: dict[str, Any]
    inputs: tuple[InputShard, ...]
    created: str = ""
    recipe_yaml: str | None = None

    @classmethod
    def create(
        cls,
        store: Store,
        recipe_yaml: str,
        identity: Mapping[str, Any],
        about: Mapping[str, Any],
        inputs: Sequence[InputShard],
    ) -> "Run":
        """Create the run in a store, or open it if it is this one.

        Raises RunMismatch for another identity, InputMismatch for another list of shards, NotARun
        for a folder that holds something else, DamagedFile. Files of this run that were set aside
        or lost are written again: `run.json` if the commits that are there are this run's.
        """
        record = _record(identity, about, inputs, recipe_yaml)
        if not store.exists("run.json"):
            strange = store.list()
            if strange and not store.exists("run.json") and not _is_of(store, strange, record):
                raise NotARun(
                    f"{store.url()} is not empty and holds no run (no run.json; found "
                    f"{strange[0]}); give an empty or new folder as output"
                )
            store.create("run.json", write_record(record))
        recorded = _read_record(store)
        check_identity(store.url(), "a run", recorded, record)
        if not store.exists("input.parquet"):
            if recorded["inputs_sha256"] != record["inputs_sha256"]:
                raise InputMismatch(
                    f"{store.url()} was begun with another list of inputs; give the same input, "
                    "or another output folder"
                )
            store.create("input.parquet", _input_parquet(inputs))
        run = cls.read(store)
        if not recipe_is_whole(run):
            store.put("recipe.yaml", (run.recipe_yaml or recipe_yaml).encode())
        compare_lists(run.inputs, inputs)
        _keep_files(store, run.inputs, inputs)
        return run

    @classmethod
    def open(cls, url: str) -> "Run":
        """Open a run that exists; raises NotARun, DamagedFile."""
        return cls.read(Store(url))

    @classmethod
    def read(cls, store: Store) -> "Run":
        """Read the run that a store holds; raises NotARun, DamagedFile."""
        record = _read_record(store)
        return cls(
            store=store,
            fingerprint=record["fingerprint"],
            identity=record["identity"],
            about=record["about"],
            inputs=_read_inputs(store, record["inputs_sha256"]),
            created=str(record.get("created", "")),
            recipe_yaml=record.get("recipe_yaml"),
        )

    def at_hand(self, inputs: Iterable[InputShard]) -> list[InputShard]:
        """Return shards listed anew as every worker can read them, by the run's list of files."""
        return [_with_files(self.store, shard) for shard in inputs]

    @property
    def shards(self) -> list[str]:
        """The names of all input shards, sorted."""
        return [shard.shard for shard in self.inputs]

    @property
    def only_screens(self) -> bool:
        """Whether it has no texts and no model: what can be read is kept."""
        return self.identity.get("kind") == SCREEN


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Hash what changes the output: SHA-256 of its canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(identity)).hexdigest()


def read_identity(store: Store) -> dict[str, Any]:
    """Read what changes the output of a run, be its creation finished or not; raises NotARun."""
    return dict(_read_record(store)["identity"])


def recipe_is_whole(run: Run) -> bool:
    """Check `recipe.yaml` against what `run.json` says of it, or, of old, that it says something.

    No command reads it but to show it.
    """
    try:
        written = run.store.read("recipe.yaml")
    except FileNotFoundError:
        return False
    if run.recipe_yaml is None:
        return bool(written.strip(b"\0 \n"))
    return written == run.recipe_yaml.encode()


def _is_of(store: Store, names: Iterable[str], record: Mapping[str, Any]) -> bool:
    """Check whether a folder without `run.json` is the run of a record, by its commits."""
    commits = [name for name in names if name.startswith("commits/")]
    fingerprints = set[str]()
    for name, data in store.read_many(commits).items():
        with suppress(DamagedFile):
            fingerprints.add(str(read_record(data, name).get("fingerprint")))
    aside = any(name.startswith("set_aside/run-") for name in names)
    return fingerprints == {record["fingerprint"]} or (aside and not fingerprints)


def _record(
    identity: Mapping[str, Any],
    about: Mapping[str, Any],
    inputs: Sequence[InputShard],
    recipe_yaml: str,
) -> dict[str, Any]:
    return {
        "run_version": RUN_VERSION,
        "fingerprint": fingerprint(identity),
        "identity": dict(identity),
        "about": dict(about),
        "inputs_sha256": list_digest(inputs),
        "created": datetime.now(UTC).isoformat(),
        "recipe_yaml": recipe_yaml,
    }


def _read_record(store: Store) -> dict[str, Any]:
    where = store.url("run.json")
    try:
        data = store.read("run.json")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotARun(f"{store.url()} holds no run{runs_near(store.url())}") from error
    record = read_record(data, where)
    version = record_version(record, "run_version", where)
    if version > RUN_VERSION:
        raise NotARun(
            f"{where} has version {version}, newer than {RUN_VERSION}, the newest this capfilt "
            "reads; update capfilt"
        )
    for key, kind in _FIELDS.items():
        if not isinstance(record.get(key), kind):
            raise DamagedFile(where, f"{key} of type {kind.__name__}", record.get(key))
    if fingerprint(record["identity"]) != record["fingerprint"]:
        expected = f"the fingerprint of its identity, {fingerprint(record['identity'])}"
        raise DamagedFile(where, expected, record["fingerprint"])
    return record


def _read_inputs(store: Store, digest: str) -> tuple[InputShard, ...]:
    where = store.url("input.parquet")
    try:
        data = store.read("input.parquet")
    except FileNotFoundError as error:
        raise NotARun(
            f"{store.url()} has no input.parquet: its creation was cut short, or the file was "
            "lost; run clean again with the same recipe, which writes it"
        ) from error
    with as_damage(where):
        rows = read_bytes(data, where).to_pylist()
    try:
        inputs = tuple(_with_files(store, InputShard(**row)) for row in rows)
        actual = list_digest(inputs)
    except TypeError as error:
        raise DamagedFile(where, "a list of input shards", error) from error
    if actual != digest:
        raise DamagedFile(where, f"the list of the digest {digest}, as run.json says", actual)
    return inputs


def check_identity(
    folder: str, what: str, recorded: Mapping[str, Any], record: Mapping[str, Any]
) -> None:
    """Raise RunMismatch where a folder's record is of something else; `what` names its content.

    Both records hold `identity`, what decides the result, and `fingerprint`, its digest.
    """
    if recorded["fingerprint"] == record["fingerprint"]:
        return
    differing = list(differences(recorded["identity"], as_json(record["identity"])))
    whose, mend = "another recipe", "give the recorded values, or another output folder"
    if any("output_version:" in difference for difference in differing):
        whose = "another version of capfilt, which gives another output"
        mend = "go on with that version, or give another output folder; what it holds can be read"
    raise RunMismatch(
        f"{folder} holds {what} of {whose}; differing (recorded -> given): "
        f"{'; '.join(differing)}; {mend}"
    )


def as_json(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a value as it comes back from JSON (tuples are lists there)."""
    return json.loads(canonical_json(value))


def differences(old: object, new: object, path: str = "") -> Iterator[str]:
    """Yield `dotted.path: recorded -> given` for every leaf that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            below = f"{path}.{key}" if path else str(key)
            yield from differences(old.get(key, "(none)"), new.get(key, "(none)"), below)
    elif old != new:
        yield f"{path}: {old} -> {new}"


def _input_parquet(inputs: Sequence[InputShard]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(shard) for shard in inputs], schema=_INPUT), buffer)
    return buffer.getvalue()


def _with_files(store: Store, shard: InputShard) -> InputShard:
    return replace(shard, listing=store.url(FILES)) if shard.kind == "folder" else shard


def _keep_files(store: Store, recorded: Sequence[InputShard], inputs: Sequence[InputShard]) -> None:
    """Put the list of files into the run, once, if it is that of the recorded shards."""
    made = next((shard.listing for shard in inputs if shard.listing is not None), None)
    known = [shard.files_sha256 for shard in inputs]
    if made is None or store.exists(FILES) or known != [s.files_sha256 for s in recorded]:
        return
    with store.staging() as staging:
        copy = staging / FILES
        shutil.copyfile(made, copy)
        store.publish(copy, FILES)
