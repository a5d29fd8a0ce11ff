"""File-safe names made from paths and keys: the SHARD and KEY of every output name."""

import hashlib
import re

_LIMIT_BYTES = 150
_KEPT_BYTES = 100
_UNSAFE = re.compile(rb"[^A-Za-z0-9_-]")


def encode_name(name: str | bytes) -> str:
    """Percent-encode every byte outside `[A-Za-z0-9_-]`; at most 150 bytes come out.

    Longer names keep their first 100 bytes, then `~` and 16 hex digits of the SHA-256 of the whole
    encoded name. `~` and `%` are encoded themselves, so no two names share an encoding by accident.
    """
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    encoded = _UNSAFE.sub(lambda unsafe: b"%%%02X" % unsafe.group()[0], raw)
    if len(encoded) > _LIMIT_BYTES:
        digest = hashlib.sha256(encoded).hexdigest()[:16]
        return f"{encoded[:_KEPT_BYTES].decode()}~{digest}"
    return encoded.decode()


def key_text(raw: bytes) -> str:
    """Return a member's key as text, with the bytes that are not UTF-8 percent-encoded.

    Arrow refuses the lone surrogates that Python would put in their place.
    """
    text = raw.decode("utf-8", "surrogateescape")
    return re.sub(
        "[\udc80-\udcff]", lambda surrogate: f"%{ord(surrogate.group()) - 0xDC00:02X}", text
    )
