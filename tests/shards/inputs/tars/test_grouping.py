"""Members in order become groups; fields beside a key are left out, wherever they stand."""

import pytest

from shards.inputs.names import field_of
from shards.inputs.tars.grouping import MOST_HELD, Group, Grouper, bounded_ending, fault_of
from shards.inputs.tars.tar import Member


def grouped(
    names: list[str], known: tuple[bytes, ...] = (), is_resolved: bool = False
) -> tuple[list[Group], Grouper]:
    grouper = Grouper(lambda member: member.name, known.__contains__, is_resolved)
    groups = []
    for name in names:
        field = field_of(name.encode())
        assert field is not None
        groups += list(grouper.take(field, Member(name.encode(), "file", 1)))
    return groups + list(grouper.finish()), grouper


def parts(names: list[str], is_resolved: bool = False) -> dict[str, set[str]]:
    return {
        group.key.decode(): {data.decode() for data in group.parts.values()}
        for group in grouped(names, is_resolved=is_resolved)[0]
    }


def test_fields_beside_a_key_are_left_out() -> None:
    names = ["0.a.txt", "0.jpg", "0.mask.png", "0.txt", "1.a.txt", "1.txt"]
    assert parts(names) == {"0": {"0.jpg", "0.txt"}, "1": {"1.txt"}}
    assert grouped(names)[1].ignored == {".a.txt": 2, ".mask.png": 1}


def test_without_fields_of_its_own_a_key_has_a_dot() -> None:
    names = ["a.1.jpg", "a.1.txt", "a.2.jpg", "b.jpg"]
    assert parts(names) == {"a.1": {"a.1.jpg", "a.1.txt"}, "a.2": {"a.2.jpg"}, "b": {"b.jpg"}}


def test_a_key_that_was_there_before_keeps_what_is_beside_it() -> None:
    groups, grouper = grouped(["0.mask.png", "1.jpg"], known=(b"0",))
    assert [group.key for group in groups] == [b"1"]
    assert grouper.ignored == {".mask.png": 1}


@pytest.mark.parametrize(("before", "keys"), [(MOST_HELD, 1), (MOST_HELD + 1, MOST_HELD + 2)])
def test_what_is_held_back_is_bounded(before: int, keys: int) -> None:
    names = [f"1.{n}.jpg" for n in range(before)]
    assert len(parts([*names, "1.jpg"])) == keys


def test_members_that_are_resolved_are_not_held_back() -> None:
    assert len(parts(["0.a.jpg", "0.jpg"], is_resolved=True)) == 2


def test_a_group_ends_where_an_extension_comes_back() -> None:
    groups, _ = grouped(["a.jpg", "a.txt", "a.JPG", "a.png"])
    assert [group.extensions for group in groups] == [{"jpg", "txt"}, {"jpg", "png"}]
    assert groups[1].details == ["a second image, .png, is not used"]


def test_endings_are_counted_within_bounds() -> None:
    known: dict[str, int] = {}
    for number in range(40):
        field = field_of(f"a.{number}.jpg".encode())
        assert field is not None
        known.setdefault(bounded_ending(field, known), 0)
    assert len(known) == 21
    assert list(known)[-1] == "others"


@pytest.mark.parametrize(
    ("member", "fault"),
    [
        (Member(b"a.jpg", "file", 1), None),
        (Member(b"a.jpg", "fifo", 1), "a.jpg is a fifo"),
        (Member(b"/a.jpg", "file", 1), "absolute member name"),
        (Member(b"a/../b.jpg", "file", 1), "member name with .."),
        (Member(b"a\0.jpg", "file", 1), "member name of 6 bytes, or with a zero byte"),
        (Member(b"a.jpg", "file", 1 << 40), f"member of {1 << 40} bytes, limit {256 << 20}"),
    ],
)
def test_faults(member: Member, fault: str | None) -> None:
    assert fault_of(member) == fault
