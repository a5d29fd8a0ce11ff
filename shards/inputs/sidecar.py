"""Read the sidecar of a picture: the JSON that a downloader wrote beside it.

Programs write JSON that JSON does not allow: numpy's NaN, a byte order mark, UTF-16, a buffer's
zero bytes, half of a surrogate pair, one name twice. What can be told is mended and noted, so that
strict JSON stands in the table; what cannot is dropped and noted, and never costs the picture.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MAX_META_BYTES = 64 * 1024

# A string is taken whole, even if it does not end, so that any text is read through once.
_TOKENS = re.compile(
    r'(?P<string>"(?:[^"\\]|\\.)*+["\\]?)|(?P<no_number>-?\b(?:nan|inf(?:inity)?)\b)',
    re.DOTALL | re.IGNORECASE,
)
_ESCAPES = re.compile(
    r"\\u[dD][89aAbB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair
    r"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A JSON object as text, and its `url`; None where there is none, with a note if it is bad."""

    meta: str | None = None
    url: str | None = None
    notes: tuple[str, ...] = ()


def read_sidecar(data: bytes | None) -> Sidecar:
    """Read a sidecar of at most 64 KiB, mending what is not strict JSON; a bad one is noted.

    It may be hostile: nested deep enough to exhaust the stack, or with numbers of thousands of
    digits, which Python refuses with a ValueError.
    """
    if data is None:
        return Sidecar()
    if len(data) > MAX_META_BYTES:
        return Sidecar(notes=("json_too_large",))
    found = read_object(data)
    if found is None:
        return Sidecar(notes=("json_unreadable",))
    meta, fields = found
    encoded = meta.encode()
    if len(encoded) > MAX_META_BYTES:  # UTF-16 can be shorter
        return Sidecar(notes=("json_too_large",))
    notes = () if encoded == data else ("json_repaired",)
    return Sidecar(meta, _url(fields.get("url")), notes)


def read_object(data: bytes) -> tuple[str, dict[str, Any]] | None:
    """Return a JSON object as strict JSON, and what it holds; None where there is none."""
    try:
        return _strict_object(data.decode(json.detect_encoding(data)))
    except (ValueError, RecursionError):
        return None


def _strict_object(written: str) -> tuple[str, dict[str, Any]]:
    """Return a JSON object as strict JSON, in its own words where they are, and what it holds."""
    text = _TOKENS.sub(_strict_token, written.rstrip("\0"))
    names_twice = False

    def as_dict(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal names_twice
        fields = dict(pairs)
        names_twice |= len(fields) < len(pairs)
        return fields

    parsed = json.loads(text, object_pairs_hook=as_dict)
    if isinstance(parsed, list) and len(parsed) == 1:  # some write the rows of a table of one
        (parsed,) = parsed
        text = text.strip()[1:-1].strip()
    if not isinstance(parsed, dict):
        raise ValueError("not an object")
    if names_twice:  # of which readers take the first or the last; json takes the last
        text = json.dumps(parsed, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text, parsed


def _strict_token(match: re.Match[str]) -> str:
    string = match["string"]
    return "null" if string is None else _ESCAPES.sub(_whole_character, string)


def _whole_character(match: re.Match[str]) -> str:
    return r"\ufffd" if match["half"] else match[0]


def _url(value: object) -> str | None:
    """Keep what can be printed: JSON escapes can spell control characters."""
    if not isinstance(value, str):
        return None
    return "".join(character if character.isprintable() else "?" for character in value)
