"""What becomes of a key that comes back."""

from shards.inputs.tars.grouping import Group
from shards.inputs.tars.seen import SeenKeys


def group(key: bytes, *extensions: str, **other: str) -> Group:
    return Group(key, extensions=set(extensions), **other)  # type: ignore[arg-type]


def test_a_key_comes_once() -> None:
    seen = SeenKeys()
    first = group(b"a", "jpg", "txt")
    assert b"a" not in seen
    assert seen.verdict(first) == (None, None)
    seen.add(first)
    assert b"a" in seen
    assert seen.verdict(group(b"a", "txt"))[0] == "duplicate_key"
    assert seen.verdict(group(b"a", "json"))[0] == "not_adjacent"
    seen.add(group(b"a", "json"))
    assert seen.verdict(group(b"a", "json"))[0] == "duplicate_key"
    assert seen.verdict(group(b"b", "txt")) == (None, None)


def test_keys_that_look_the_same_in_the_tables_are_the_same() -> None:
    seen = SeenKeys()
    seen.add(group(b"caf\xe9", "jpg"))
    assert seen.verdict(group(b"caf%E9", "jpg"))[0] == "duplicate_key"


def test_what_is_unsafe_comes_first_and_foreign_pictures_last() -> None:
    seen = SeenKeys()
    assert seen.verdict(group(b"a", "bmp", foreign="bmp"))[0] == "format_not_allowed"
    linked = group(b"a", "bmp", foreign="bmp", foreign_fault="a.bmp is a symbolic link")
    assert seen.verdict(linked)[0] == "unsafe_member"
    seen.add(group(b"a", "bmp"))
    assert seen.verdict(group(b"a", "bmp", foreign="bmp"))[0] == "duplicate_key"
    assert seen.verdict(group(b"a", "bmp", unsafe="why"))[0] == "unsafe_member"
