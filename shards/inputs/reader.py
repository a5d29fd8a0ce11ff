"""The strict reader of input shards: every sample comes out as a row, and nothing is lost silently.

Members that stand side by side and share a key are one sample. Damage costs the sample that it hits
(one rejected row) and what lies behind it, and stands in the shard's state.
"""

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import BinaryIO, cast

from pydantic import BaseModel, ConfigDict

from shards.inputs.names import IMAGE_EXTENSIONS, split_name
from shards.inputs.tar import Member, TarDamage, TarReader
from shards.naming import key_text
from shards.reasons import SampleReason
from shards.store import filesystem

_ROLES = {**dict.fromkeys(IMAGE_EXTENSIONS, "image"), "txt": "text", "json": "meta"}
_PAIR = frozenset({"image", "text"})
# a larger member is `unsafe_member`, and not read
_LARGEST_MEMBER_BYTES = 256 << 20
_LONGEST_NAME_BYTES = 4096


class State(StrEnum):
    """How a shard ended."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    NOT_A_TAR = "not_a_tar"
    COMPRESSED = "compressed"
    EMPTY = "empty"


_CUT_REASONS = {
    State.TRUNCATED: SampleReason.SHARD_TRUNCATED,
    State.CORRUPT: SampleReason.SHARD_CORRUPT,
}


class ShardState(BaseModel):
    """How a shard ended, and at which byte if it is damaged, as commits record it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    state: State
    offset: int | None = None
    detail: str | None = None

    @property
    def damaged(self) -> bool:
        """Whether the shard was anything but complete."""
        return self.state != State.COMPLETE


@dataclass(frozen=True, slots=True)
class RawSample:
    """One sample as it stands in the shard; where `reason` is set it is rejected, without bytes.

    `key` is empty if damage hides it. `end_offset` counts the shard's bytes read so far, and
    `image_offset` those before the image's content.
    """

    index: int
    key: str
    image: bytes | None
    image_ext: str | None
    text: bytes | None
    meta: bytes | None
    reason: str | None
    detail: str | None
    end_offset: int
    image_offset: int | None = None


@dataclass(slots=True)
class _Group:
    """The members, side by side, of one key."""

    key: bytes
    extensions: set[str] = field(default_factory=set)
    parts: dict[str, bytes] = field(default_factory=dict)
    image_ext: str | None = None
    image_offset: int | None = None
    unsafe: str | None = None
    details: list[str] = field(default_factory=list)

    @property
    def roles(self) -> frozenset[str]:
        return frozenset(_ROLES[extension] for extension in self.extensions)


class _SeenKeys:
    """The keys that came before, by their hash, with the extensions of their members."""

    def __init__(self) -> None:
        self._extensions: dict[bytes, frozenset[str]] = {}

    def verdict(self, group: _Group) -> tuple[str | None, str | None]:
        before = self._extensions.get(_digest(group.key))
        if group.unsafe is not None:
            return SampleReason.UNSAFE_MEMBER, group.unsafe
        if before is not None and before & group.extensions:
            return SampleReason.DUPLICATE_KEY, "the key had such a member before; the first stays"
        if before is not None:
            detail = "the key's members stand apart; sort the shard's members by name"
            return SampleReason.NOT_ADJACENT, detail
        return None, "; ".join(group.details) or None

    def add(self, group: _Group) -> None:
        digest = _digest(group.key)
        self._extensions[digest] = self._extensions.get(digest, frozenset()) | group.extensions


class ShardReader:
    """Iterate once for the samples; then `state`, `sha256` and `bytes_read` are known."""

    def __init__(self, file: BinaryIO) -> None:
        self._walk = TarReader(file)
        self._group: _Group | None = None
        self._seen = _SeenKeys()
        self._usual_roles = _PAIR
        self._count = 0
        self._only_sidecars = True
        self._held: list[_Group] = []
        self._state: ShardState | None = None

    def __iter__(self) -> Iterator[RawSample]:
        """Yield one row per sample, in order; bad data never raises, a failing disk does."""
        damage = None
        try:
            for member in self._walk:
                yield from self._take(member)
        except TarDamage as error:
            damage = error
        yield from self._end(damage or self._suspected_cut())
        self._walk.drain()

    @property
    def state(self) -> ShardState:
        """How the shard ended; RuntimeError before the last row was taken."""
        if self._state is None:
            raise RuntimeError("a shard's state is known after its last row")
        return self._state

    @property
    def sha256(self) -> str:
        """Hash of the whole shard, in hex, once the last row was taken."""
        return self._walk.sha256

    @property
    def bytes_read(self) -> int:
        """Bytes read so far; the shard's size once the last row was taken."""
        return self._walk.bytes_read

    def _take(self, member: Member) -> Iterator[RawSample]:
        key, extension = split_name(member.name)
        if extension not in _ROLES or member.kind == "directory":
            return
        group = self._group
        if group is None or group.key != key or extension in group.extensions:
            if group is not None:
                yield from self._close(group)
            self._group = group = _Group(key)
        first_of_role = _ROLES[extension] not in group.roles
        group.extensions.add(extension)
        fault = _fault(member)
        if fault is not None:
            group.unsafe = fault
        elif first_of_role:
            offset = self._walk.bytes_read
            group.parts[_ROLES[extension]] = self._walk.read(member)
            if extension in IMAGE_EXTENSIONS:
                group.image_ext, group.image_offset = extension, offset
        else:
            group.details.append(f"a second image, .{extension}, is not used")

    def _close(self, group: _Group) -> Iterator[RawSample]:
        """Yield the row of a finished group, and the rows held back before it."""
        self._group = None
        if self._only_sidecars and group.roles == {"meta"}:
            self._seen.add(group)
            self._held.append(_Group(group.key))  # becomes a row once the shard has any pair
            return
        self._only_sidecars = False
        yield from self._release()
        reason, detail = self._seen.verdict(group)
        self._seen.add(group)
        if reason is None:
            self._usual_roles = group.roles
        yield self._row(group, reason, detail)

    def _release(self) -> Iterator[RawSample]:
        held, self._held = self._held, []
        for group in held:
            yield self._row(group, None, None)

    def _row(self, group: _Group, reason: str | None, detail: str | None) -> RawSample:
        parts = group.parts if reason is None else {}
        index, self._count = self._count, self._count + 1
        return RawSample(
            index=index,
            key=key_text(group.key[:_LONGEST_NAME_BYTES]),
            image=parts.get("image"),
            image_ext=group.image_ext if parts else None,
            text=parts.get("text"),
            meta=parts.get("meta"),
            reason=reason,
            detail=detail,
            end_offset=self._walk.bytes_read,
            image_offset=group.image_offset if parts else None,
        )

    def _suspected_cut(self) -> TarDamage | None:
        """Take a missing end marker for a cut if the last sample lacks what the others have."""
        group = self._group
        if self._walk.has_end_marker or group is None or self._usual_roles <= group.roles:
            return None
        detail = "the file ends after a member, without an end marker, in mid-sample"
        return TarDamage(State.TRUNCATED, self._walk.bytes_read, detail)

    def _end(self, damage: TarDamage | None) -> Iterator[RawSample]:
        """Yield the last rows and set the state."""
        group = self._group
        cut = self._cut_group(damage) if damage else None
        if group is not None and (cut is None or cut.key != group.key):
            yield from self._close(group)
        if cut is not None and damage is not None:
            yield from self._release()
            yield self._row(cut, _CUT_REASONS[State(damage.state)], damage.detail)
        self._state = self._final_state(damage)

    def _cut_group(self, damage: TarDamage) -> _Group | None:
        """Find the sample that the damage hit: the open one, or one that never began."""
        if damage.state not in _CUT_REASONS or self._walk.has_end_marker:
            return None
        group, (hit, extension) = self._group, split_name(damage.name or b"")
        if group is not None and (hit == group.key or not self._usual_roles <= group.roles):
            return group
        return _Group(hit if extension in _ROLES else b"")  # a broken header's name may be garbage

    def _final_state(self, damage: TarDamage | None) -> ShardState:
        if damage is not None:
            state = State(damage.state)
            return ShardState(state=state, offset=damage.offset, detail=damage.detail)
        if self._count == 0:
            return ShardState(state=State.EMPTY, detail="no image and no text in it")
        if not self._walk.has_end_marker:
            # whether more should follow, only its writer knows: said, rather than passed over
            detail = "no end marker; all members that are there are whole"
            offset = self._walk.bytes_read
            return ShardState(state=State.TRUNCATED, offset=offset, detail=detail)
        return ShardState(state=State.COMPLETE)


def _fault(member: Member) -> str | None:
    """Return why a member must not be read, or None."""
    if member.kind != "file":
        return f"{key_text(member.name)} is a {member.kind}"
    if member.name.startswith(b"/"):
        return "absolute member name"
    if b".." in member.name.split(b"/"):
        return "member name with .."
    if b"\0" in member.name or len(member.name) > _LONGEST_NAME_BYTES:
        return f"member name of {len(member.name)} bytes, or with a zero byte"
    if member.size_bytes > _LARGEST_MEMBER_BYTES:
        return f"member of {member.size_bytes} bytes, limit {_LARGEST_MEMBER_BYTES}"
    return None


def open_shard(url: str) -> AbstractContextManager[BinaryIO]:
    """Open a shard for one pass, from local disk or any fsspec URL."""
    fs, path = filesystem(url)
    return cast(AbstractContextManager[BinaryIO], fs.open(path, "rb"))


def _digest(key: bytes) -> bytes:
    """Hash a key as the tables show it: two keys that look the same there are the same."""
    return hashlib.blake2b(key_text(key).encode(), digest_size=16).digest()
