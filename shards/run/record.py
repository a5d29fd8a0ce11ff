"""The JSON files of a run folder: sealed as they are written, checked as they are read.

A sealed record ends with the SHA-256 of the rest of it, so that no changed byte passes for a fact.
Records of older versions have no seal, and are read as they are.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from shards.errors import DamagedFile

SEAL = "seal"
_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)
Model = TypeVar("Model", bound=BaseModel)


def canonical_json(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Write JSON in the one way that equal values share; NaN is refused."""
    return _CANONICAL.encode(value).encode()


def write_record(record: Mapping[str, Any]) -> bytes:
    """Write a record for people to read, with its seal as the last line."""
    sealed = {**record, SEAL: _seal(record)}
    return (json.dumps(sealed, indent=2, ensure_ascii=False) + "\n").encode()


def read_record(data: bytes, where: str) -> dict[str, Any]:
    """Read a record; raises DamagedFile if it is none, or not as it was sealed."""
    try:
        record = json.loads(data)
        sealed = record.pop(SEAL, None) if isinstance(record, dict) else None
        actual = _seal(record)  # of what has no seal, too: it refuses what is no JSON (NaN)
    except RecursionError as error:
        raise DamagedFile(where, "a JSON object", "brackets too deep to be read") from error
    except ValueError as error:
        raise DamagedFile(where, "a JSON object", error) from error
    if not isinstance(record, dict):
        raise DamagedFile(where, "a JSON object", type(record).__name__)
    if sealed not in (None, actual):
        raise DamagedFile(where, f"content with the seal {sealed}", actual)
    return record


def record_version(record: Mapping[str, Any], key: str, where: str) -> int:
    """Return the version that a record names; raises DamagedFile if that is no number."""
    version = record.get(key)
    if not isinstance(version, int):
        raise DamagedFile(where, f"a number as {key}", version)
    return version


def as_model(model: type[Model], record: Mapping[str, Any], where: str) -> Model:
    """Check a record against its model; raises DamagedFile."""
    try:
        return model.model_validate(record)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(map(str, first["loc"])) or "the record"
        raise DamagedFile(where, f"a {model.__name__}", f"{path}: {first['msg']}") from error


def _seal(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(record)).hexdigest()
