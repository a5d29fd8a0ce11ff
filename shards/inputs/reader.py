"""The strict reader of input shards: every sample comes out as a row, and nothing is lost silently.

Members that share a key are one sample. Damage costs the sample that it hits (one rejected row) and
what lies behind it, and stands in the shard's state.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO, cast

from pydantic import BaseModel, ConfigDict

from shards.inputs.names import field_of
from shards.inputs.tars.grouping import LONGEST_NAME_BYTES, Group, Grouper
from shards.inputs.tars.seen import SeenKeys
from shards.inputs.tars.tar import Member, TarDamage
from shards.inputs.tars.walk import Walk
from shards.inputs.text import TXT, TextSource
from shards.naming import key_text
from shards.reasons import SampleReason
from shards.store import filesystem


class State(StrEnum):
    """How a shard ended."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    NOT_A_TAR = "not_a_tar"
    COMPRESSED = "compressed"
    EMPTY = "empty"
    NOT_PARQUET = "not_parquet"


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
    `image_offset` those before the image's content, in the file at `image_url` if that is another.
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
    image_url: str | None = None


class ShardReader:
    """Iterate once for the samples; then `state`, `sha256` and `bytes_read` are known.

    `text` says where texts stand. Members that stand apart are joined where the file can be sought
    in; in a remote one no sample that lacks something is given out before that was tried.
    """

    def __init__(self, file: BinaryIO, text: TextSource = TXT) -> None:
        self._source, self._text = file, text
        self._usual_roles = text.roles
        self._seen = SeenKeys()
        self._count = 0
        self._only_sidecars = True
        # lone sidecars become rows once the shard has any pair
        self._held: list[tuple[Group, SampleReason | None, str | None]] = []
        self._has_cut = False
        self._state: ShardState | None = None

    def __iter__(self) -> Iterator[RawSample]:
        """Yield one row per sample, in order; bad data never raises, a failing disk does."""
        self._walk = Walk(self._source, self._text, self._seen.__contains__)
        self._groups = self._grouper()
        damage = None
        try:
            for member in self._walk:
                yield from self._take(member)
        except TarDamage as error:
            damage = error
        yield from self._end(damage or self._suspected_cut())
        self._walk.finish()

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

    def _grouper(self) -> Grouper:
        return Grouper(self._walk.read, self._seen.__contains__, self._walk.index is not None)

    def _take(self, member: Member) -> Iterator[RawSample]:
        field = field_of(member.name, self._text.extension)
        if field is None or member.kind == "directory":
            return
        for group in self._groups.take(field, member):
            if self._lacks_something(group) and self._walk.look_ahead(group.start):
                ignored, self._groups = self._groups.ignored, self._grouper()
                self._groups.ignored += ignored
                return
            yield from self._close(group)

    def _lacks_something(self, group: Group) -> bool:
        return not (self._usual_roles | self._text.roles) <= group.has

    def _close(self, group: Group) -> Iterator[RawSample]:
        """Yield the row of a finished group, and the rows held back before it."""
        if self._only_sidecars and group.roles == {"meta"}:
            self._seen.add(group)
            self._held.append((Group(group.key), *self._cut_reason(group)))
            return
        self._only_sidecars = False
        yield from self._release()
        reason, detail = self._seen.verdict(group)
        self._seen.add(group)
        if reason is None:
            cut, why = self._cut_reason(group)
            reason, detail = cut, why or detail
        if reason is None:
            self._usual_roles = group.has
            if group.foreign is not None:
                self._groups.ignored[f".{group.foreign}"] += 1
        yield self._row(group, reason, detail)

    def _release(self) -> Iterator[RawSample]:
        held, self._held = self._held, []
        yield from (self._row(*row) for row in held)

    def _cut_reason(self, group: Group) -> tuple[SampleReason | None, str | None]:
        """Return why damage may have cost a group a member, with a detail; None if it cannot."""
        if (cut := self._walk.cut_state(group.key)) is None:
            return None, None
        self._has_cut = True
        return _CUT_REASONS[State(cut)], "what it lacks may stand behind the damage"

    def _row(self, group: Group, reason: SampleReason | None, detail: str | None) -> RawSample:
        parts = group.parts if reason is None else {}
        index, self._count = self._count, self._count + 1
        meta, image = parts.get("meta"), group.image if parts else None
        return RawSample(
            index=index,
            key=key_text(group.key[:LONGEST_NAME_BYTES]),
            image=parts.get("image"),
            image_ext=group.image_ext if parts else None,
            text=self._text.read(parts.get("text"), meta),
            meta=meta,
            reason=reason,
            detail=detail,
            end_offset=self._walk.passed_bytes,
            image_offset=self._walk.offset_of(image) if image else None,
        )

    def _suspected_cut(self) -> TarDamage | None:
        """Take a missing end marker for a cut if the last sample lacks what the others have."""
        group, index = self._groups.open, self._walk.index
        if index is not None:
            is_whole = not index.cut
        else:
            is_whole = group is None or self._usual_roles <= group.has
        if self._walk.has_end_marker or is_whole:
            return None
        detail = "the file ends after a member, without an end marker, in mid-sample"
        return TarDamage(State.TRUNCATED, self._walk.end, detail)

    def _end(self, damage: TarDamage | None) -> Iterator[RawSample]:
        """Yield the last rows and set the state."""
        cut = self._cut_group(damage) if damage else None
        if cut is not None:
            self._groups.forget_held(cut.key)
        for group in self._groups.finish():
            if cut is None or group.key != cut.key:
                yield from self._close(group)
        if cut is not None and damage is not None and not self._is_told(cut):
            yield from self._release()
            yield self._row(cut, _CUT_REASONS[State(damage.state)], damage.detail)
        ignored = self._groups.ignored + self._walk.ignored
        self._state = _final_state(self._walk, damage, self._count, ignored)

    def _is_told(self, cut: Group) -> bool:
        """Check whether the sample that damage hit was given out as cut, where that comes early."""
        return self._has_cut and (not cut.key or self._walk.cut_state(cut.key) is not None)

    def _cut_group(self, damage: TarDamage) -> Group | None:
        """Find the sample that the damage hit: the open one, or one that never began."""
        if damage.state not in _CUT_REASONS or self._walk.has_end_marker:
            return None
        group, hit = self._groups.open, field_of(damage.name or b"", self._text.extension)
        key = hit.key if hit else b""  # a broken header's name may be garbage
        is_open = group is not None and (key == group.key or not self._usual_roles <= group.has)
        return group if is_open and self._walk.index is None else Group(key)


def _final_state(
    walk: Walk, damage: TarDamage | None, rows: int, ignored: Mapping[str, int]
) -> ShardState:
    if damage is not None:
        state = State(damage.state)
        return ShardState(state=state, offset=damage.offset, detail=damage.detail)
    if not rows:
        return ShardState(state=State.EMPTY, detail="no image and no text in it")
    if not walk.has_end_marker:
        # whether more should follow, only its writer knows: said, rather than passed over
        detail = "no end marker; all members that are there are whole"
        return ShardState(state=State.TRUNCATED, offset=walk.end, detail=detail)
    listed = ", ".join(f"{count} {ending}" for ending, count in sorted(ignored.items()))
    unused = f"other fields beside a key, not used: {listed}" if listed else None
    return ShardState(state=State.COMPLETE, detail=unused)


def open_shard(url: str) -> AbstractContextManager[BinaryIO]:
    """Open a shard for one pass, from local disk or any fsspec URL."""
    fs, path = filesystem(url)
    return cast(AbstractContextManager[BinaryIO], fs.open(path, "rb"))
