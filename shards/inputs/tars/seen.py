"""The keys that came before in a shard: what becomes of one that comes back."""

import hashlib

from shards.inputs.names import not_read
from shards.inputs.tars.grouping import Group
from shards.naming import key_text
from shards.reasons import SampleReason

_APART = (
    "the key's members stand apart, in a shard that is a stream: unpack it, or sort its members "
    "by name"
)


class SeenKeys:
    """The keys that came before, by their hash, with the extensions of their members."""

    def __init__(self) -> None:
        self._extensions: dict[bytes, frozenset[str]] = {}
        self._sets: dict[frozenset[str], frozenset[str]] = {}  # few, each held once

    def __contains__(self, key: bytes) -> bool:
        """Check whether a key came before."""
        return bool(self._extensions) and _digest(key) in self._extensions

    def verdict(self, group: Group) -> tuple[SampleReason | None, str | None]:
        """Return why a group is no sample, and a detail; both may be None."""
        before = self._extensions.get(_digest(group.key))
        if group.unsafe is not None:
            return SampleReason.UNSAFE_MEMBER, group.unsafe
        if before is not None and before & group.extensions:
            return SampleReason.DUPLICATE_KEY, "the key had such a member before; the first stays"
        if before is not None:
            return SampleReason.NOT_ADJACENT, _APART
        if group.foreign is not None and group.image is None:
            if group.foreign_fault is not None:
                return SampleReason.UNSAFE_MEMBER, group.foreign_fault
            return SampleReason.FORMAT_NOT_ALLOWED, not_read(f".{group.foreign}")
        return None, "; ".join(group.details) or None

    def add(self, group: Group) -> None:
        """Remember a group's key, and its members."""
        digest = _digest(group.key)
        known = self._extensions.get(digest, frozenset()) | group.extensions
        self._extensions[digest] = self._sets.setdefault(known, known)


def _digest(key: bytes) -> bytes:
    """Hash a key as the tables show it: two keys that look the same there are the same."""
    return hashlib.blake2b(key_text(key).encode(), digest_size=16).digest()
