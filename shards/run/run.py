"""The run folder: one cleaning of a fixed list of shards, under one fingerprint.

`run.json` is written first and only if absent, so it decides which recipe and which list own the
folder; a creation that was killed half-way is finished by the next one with the same.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shards.errors import UsageError
from shards.inputs.listing import InputMismatch, InputShard, compare_lists, list_digest
from shards.schema import read_bytes
from shards.store import Store

RUN_VERSION = 1
_INPUT = pa.schema(
    [
        pa.field("url", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("etag", pa.string()),
        pa.field("mtime", pa.float64()),
    ]
)


class NotARun(UsageError):  # noqa: N818 - reads as what happened
    """A folder that holds something, but no run that this code can read."""


class RunMismatch(UsageError):  # noqa: N818 - reads as what happened
    """The folder holds a run of another recipe."""


@dataclass(frozen=True, slots=True)
class Run:
    """An open run; `identity` is what changes the output, `about` what was merely so."""

    store: Store
    fingerprint: str
    identity: dict[str, Any]
    about: dict[str, Any]
    inputs: tuple[InputShard, ...]

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
        for a folder that holds something else.
        """
        record = _record(identity, about, inputs)
        if not store.exists("run.json"):
            strange = store.list()
            if strange and not store.exists("run.json"):
                raise NotARun(
                    f"{store.url()} is not empty and holds no run (no run.json; found "
                    f"{strange[0]}); give an empty or new folder as output"
                )
            store.create("run.json", _json(record))
        recorded = _read_record(store)
        check_identity(store.url(), "a run", recorded, record)
        if not store.exists("input.parquet"):
            if recorded["inputs_sha256"] != record["inputs_sha256"]:
                raise InputMismatch(
                    f"{store.url()} was begun with another list of inputs; give the same input, "
                    "or another output folder"
                )
            store.create("input.parquet", _input_parquet(inputs))
        store.create("recipe.yaml", recipe_yaml.encode())
        run = cls.read(store)
        compare_lists(run.inputs, inputs)
        return run

    @classmethod
    def open(cls, url: str) -> "Run":
        """Open a run that exists; raises NotARun."""
        return cls.read(Store(url))

    @classmethod
    def read(cls, store: Store) -> "Run":
        """Read the run that a store holds; raises NotARun."""
        record = _read_record(store)
        try:
            table = read_bytes(store.read("input.parquet"))
        except FileNotFoundError as error:
            raise NotARun(
                f"{store.url()} has no input.parquet: its creation was cut short; "
                "run clean again with the same recipe"
            ) from error
        except pa.ArrowException as error:
            raise NotARun(
                f"{store.url('input.parquet')} cannot be read ({error}); if nothing else is wrong "
                "here, delete it, and run clean again with the same recipe and input"
            ) from error
        inputs = tuple(InputShard(**row) for row in table.to_pylist())
        return cls(store, record["fingerprint"], record["identity"], record["about"], inputs)

    @property
    def shards(self) -> list[str]:
        """The names of all input shards, sorted."""
        return [shard.shard for shard in self.inputs]


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Hash what changes the output: SHA-256 of its canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(identity)).hexdigest()


def canonical_json(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Write JSON in the one way that equal values share; NaN is refused."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def read_identity(store: Store) -> dict[str, Any]:
    """Read what changes the output of a run, be its creation finished or not; raises NotARun."""
    return dict(_read_record(store)["identity"])


def _record(
    identity: Mapping[str, Any], about: Mapping[str, Any], inputs: Sequence[InputShard]
) -> dict[str, Any]:
    return {
        "run_version": RUN_VERSION,
        "fingerprint": fingerprint(identity),
        "identity": dict(identity),
        "about": dict(about),
        "inputs_sha256": list_digest(inputs),
        "created": datetime.now(UTC).isoformat(),
    }


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _read_record(store: Store) -> dict[str, Any]:
    try:
        record = json.loads(store.read("run.json"))
        version = int(record["run_version"])
    except FileNotFoundError as error:
        raise NotARun(f"{store.url()} holds no run (no run.json)") from error
    except (ValueError, TypeError, KeyError) as error:
        raise NotARun(f"{store.url('run.json')} cannot be read: {error}") from error
    if version > RUN_VERSION:
        raise NotARun(
            f"{store.url('run.json')} has version {version}, newer than {RUN_VERSION}, the newest "
            "this capfilt reads; update capfilt"
        )
    return dict(record)


def check_identity(
    folder: str, what: str, recorded: Mapping[str, Any], record: Mapping[str, Any]
) -> None:
    """Raise RunMismatch where a folder's record is of something else; `what` names its content.

    Both records hold `identity`, what decides the result, and `fingerprint`, its digest.
    """
    if recorded["fingerprint"] == record["fingerprint"]:
        return
    differing = "; ".join(differences(recorded["identity"], as_json(record["identity"])))
    raise RunMismatch(
        f"{folder} holds {what} of another recipe; differing (recorded -> given): {differing}; "
        "give the recorded values, or another output folder"
    )


def as_json(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a value as it comes back from JSON (tuples are lists there)."""
    return json.loads(canonical_json(value))


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:  # noqa: ANN401
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
