"""Members side by side become groups, one for each sample: which fields belong to which key.

A picture, text or sidecar directly behind a key makes all other fields of the key (`000.mask.png`)
be left out. They may stand before it, so they are held back, within bounds, until it is known
whether it comes: `a.1.jpg`, `a.2.jpg` without any `a.jpg` are pictures of keys with a dot.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from shards.inputs.names import Field
from shards.inputs.tars.tar import Member
from shards.naming import key_text

# a larger member is `unsafe_member`, and not read
_LARGEST_MEMBER_BYTES = 256 << 20
LONGEST_NAME_BYTES = 4096
# A base with more such fields before its own is none: 1.00001.jpg, 1.00002.jpg, ...
MOST_HELD = 64
_MOST_HELD_BYTES = 32 << 20
_ENDINGS_COUNTED, _LONGEST_ENDING_BYTES = 20, 40

Read = Callable[[Member], bytes]


@dataclass(slots=True)
class Group:
    """The members of one sample; `start` is where the first one's headers begin.

    `begin` is where those of the first field beside its key do, if that stands before it.
    """

    key: bytes
    start: int = 0
    begin: int = 0
    extensions: set[str] = field(default_factory=set)
    roles: set[str] = field(default_factory=set)
    parts: dict[str, bytes] = field(default_factory=dict)
    image_ext: str | None = None
    image: Member | None = None
    foreign: str | None = None  # the extension of a picture that is not read
    foreign_fault: str | None = None
    unsafe: str | None = None
    details: list[str] = field(default_factory=list)

    @property
    def has(self) -> frozenset[str]:
        """Its roles; a picture that is not read is one, too."""
        return frozenset("image" if role == "foreign" else role for role in self.roles)


@dataclass(slots=True)
class _Held:
    """A field that may or may not be a sample of its own; `data` is None if it was not read."""

    field: Field
    member: Member
    data: bytes | None


class Grouper:
    """Takes members in order, and yields each group when it ends.

    `read` gives the bytes of the member just taken. `has_fields` tells whether a key had fields of
    its own before. With `is_resolved` the members are known to be of their keys: none is held back.
    """

    def __init__(
        self, read: Read, has_fields: Callable[[bytes], bool], is_resolved: bool = False
    ) -> None:
        self._read, self._has_fields, self._is_resolved = read, has_fields, is_resolved
        self.open: Group | None = None
        self._base: bytes | None = None
        self._begin = 0  # where the base began
        self._held: list[_Held] = []
        self._held_bytes = 0
        self._is_own = is_resolved  # members of this base are of keys of their own
        self.ignored = Counter[str]()  # by ending

    def take(self, field: Field, member: Member) -> Iterator[Group]:
        """Take the next member; yield the groups that ended before it was read."""
        if field.base != self._base:
            yield from self.finish()
            self._base, self._is_own = field.base, self._is_resolved
            self._begin = member.start
        if self._is_own:
            yield from self._take_by_key(_Held(field, member, None))
        elif field.is_direct:
            self._ignore_held()
            yield from self._take_by_key(_Held(field, member, None))
        elif self.open is not None or self._has_fields(field.base):
            self.ignore(field)
        else:
            yield from self._hold(field, member)

    @property
    def begun(self) -> int | None:
        """Where the next group begins that will be yielded, if one has."""
        if self.open is not None:
            return self.open.begin
        return self._begin if self._held else None

    def finish(self) -> Iterator[Group]:
        """Yield what is open still."""
        if self._held and self._has_fields(self._held[0].field.base):
            self._ignore_held()
        yield from self._release()
        group, self.open = self.open, None
        if group is not None:
            yield group

    def ignore(self, field: Field) -> None:
        """Count a field that no sample uses."""
        self.ignored[bounded_ending(field, self.ignored)] += 1

    def forget_held(self, base: bytes) -> None:
        """Leave out what was held back, if it is of this base."""
        if self._held and self._held[0].field.base == base:
            self._ignore_held()

    def _hold(self, field: Field, member: Member) -> Iterator[Group]:
        readable = field.role != "foreign" and fault_of(member) is None
        self._held.append(_Held(field, member, self._read(member) if readable else None))
        self._held_bytes += member.size_bytes if readable else 0
        if len(self._held) > MOST_HELD or self._held_bytes > _MOST_HELD_BYTES:
            self._is_own = True
            yield from self._release()

    def _release(self) -> Iterator[Group]:
        """Take what was held back for samples of their own."""
        held, self._held, self._held_bytes = self._held, [], 0
        while held:
            yield from self._take_by_key(held.pop(0))

    def _ignore_held(self) -> None:
        for item in self._held:
            self.ignore(item.field)
        self._held, self._held_bytes = [], 0

    def _take_by_key(self, item: _Held) -> Iterator[Group]:
        group, key, extension = self.open, item.field.key, item.field.extension
        if group is None or group.key != key or extension in group.extensions:
            self.open = None
            if group is not None:
                yield group
            begin = self._begin if item.field.is_direct and group is None else item.member.start
            self.open = group = Group(key, item.member.start, begin)
        self._put(group, item)

    def _put(self, group: Group, item: _Held) -> None:
        field, member = item.field, item.member
        is_first = field.role not in group.roles
        group.extensions.add(field.extension)
        group.roles.add(field.role)
        fault = fault_of(member)
        if field.role == "foreign":
            group.foreign = group.foreign or field.extension
            group.foreign_fault = group.foreign_fault or fault
        elif fault is not None:
            group.unsafe = fault
        elif is_first:
            group.parts[field.role] = self._read(member) if item.data is None else item.data
            if field.role == "image":
                group.image_ext, group.image = field.extension, member
        else:
            group.details.append(f"a second image, .{field.extension}, is not used")


def bounded_ending(field: Field, known: Mapping[str, int]) -> str:
    """Return what stands behind a field's base, or `others` once many are known."""
    ending = key_text(field.ending[:_LONGEST_ENDING_BYTES])
    return ending if ending in known or len(known) < _ENDINGS_COUNTED else "others"


def fault_of(member: Member) -> str | None:
    """Return why a member must not be read, or None."""
    if member.kind != "file":
        return f"{key_text(member.name[:LONGEST_NAME_BYTES])} is a {member.kind}"
    if member.name.startswith(b"/"):
        return "absolute member name"
    if b".." in member.name.split(b"/"):
        return "member name with .."
    if b"\0" in member.name or len(member.name) > LONGEST_NAME_BYTES:
        return f"member name of {len(member.name)} bytes, or with a zero byte"
    if member.size_bytes > _LARGEST_MEMBER_BYTES:
        return f"member of {member.size_bytes} bytes, limit {_LARGEST_MEMBER_BYTES}"
    return None
