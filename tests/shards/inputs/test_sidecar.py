"""Sidecars: what programs write that is no JSON is mended; hostile ones do no harm."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.inputs.sidecar import MAX_META_BYTES, Sidecar, read_sidecar

REPAIRED = ("json_repaired",)


def strict(text: str) -> object:
    """Read JSON by the letter: no NaN, no half characters, no name twice."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        assert len({name for name, _ in pairs}) == len(pairs)
        return dict(pairs)

    read = json.loads(text, parse_constant=refuse, object_pairs_hook=once)
    json.dumps(read, ensure_ascii=False).encode()
    return read


@pytest.mark.parametrize(
    ("data", "meta"),
    [
        (b'{"url": "u", "similarity": NaN}', '{"url": "u", "similarity": null}'),
        (b'{"a": [Infinity, -Infinity], "url": "u"}', '{"a": [null, null], "url": "u"}'),
        (b'{"url":"u","a":nan,"b":-inf}', '{"url":"u","a":null,"b":null}'),
        (b'{"url": "u", "t": "NaN \\" Infinity"}', None),  # words of a string stay
        (b'\xef\xbb\xbf{"url": "u"}', '{"url": "u"}'),
        ('{"url": "u", "a": "é"}'.encode("utf-16"), '{"url": "u", "a": "é"}'),
        ('{"url": "u", "a": "猫"}'.encode("utf-16-be"), '{"url": "u", "a": "猫"}'),
        ('\ufeff{"url": "u"}'.encode("utf-16-le"), '{"url": "u"}'),
        (b'{"url": "u"}\0\0\0', '{"url": "u"}'),
        (b'{"url": "u"}\n\0', '{"url": "u"}\n'),
        (b'{"url": "u"}\n\n', None),
        (b'[{"url": "u", "a": [1]}]', '{"url": "u", "a": [1]}'),
        (b' [ {"url": "u"} ]\n', '{"url": "u"}'),
        (b'{"url": "v", "a": 1.50, "url": "u"}', '{"url":"u","a":1.5}'),
        (b'{"url": "u", "a": {"b": "\xc3\xa9", "b": 2}}', '{"url":"u","a":{"b":2}}'),
        (rb'{"url": "u", "a": "\ud83d"}', r'{"url": "u", "a": "\ufffd"}'),
        (rb'{"url": "u", "a": "\udc00\ud800x"}', r'{"url": "u", "a": "\ufffd\ufffdx"}'),
        (rb'{"url": "u", "a": "\uD83D\uDE42 \\ud83d"}', None),  # a pair, and no escape at all
        (b'{"url": "u", "id": 123456789012345678901234567890, "f": 1.0e3}', None),
        (rb'{"url": "u", "caption": "a\u0000b"}', None),
    ],
)
def test_what_programs_write_is_kept_as_strict_json(data: bytes, meta: str | None) -> None:
    """None: it is strict already, and stays as it was written."""
    expected = Sidecar(data.decode(), "u") if meta is None else Sidecar(meta, "u", REPAIRED)
    assert read_sidecar(data) == expected
    assert isinstance(strict(expected.meta or ""), dict)


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (b"", "json_unreadable"),
        (b"\0\0\0", "json_unreadable"),
        (b"\xef\xbb\xbf", "json_unreadable"),
        (b'{"url": "x"', "json_unreadable"),
        (b'{"url": "x" NaN}', "json_unreadable"),
        (b"{NaN: 1}", "json_unreadable"),
        (b'{"a": 1NaN}', "json_unreadable"),
        (b"[1]", "json_unreadable"),
        (b"[]", "json_unreadable"),
        (b'[{"url": "x"}, {"url": "y"}]', "json_unreadable"),
        (b"null", "json_unreadable"),
        (b"NaN", "json_unreadable"),
        (b"{'url': 'x'}", "json_unreadable"),
        (b'{"a": "\xff"}', "json_unreadable"),
        (b'{"url": "x"}'.decode().encode("utf-16")[:-1], "json_unreadable"),
        (b'{"a": ' + b"9" * 5000 + b"}", "json_unreadable"),
        (b'{"a": 1e999, "a": 1e999}', "json_unreadable"),
        (b'{"a":' + b"[" * 32_000 + b"]" * 32_000 + b"}", "json_unreadable"),
        (b'{"a":' * 12_000 + b"1" + b"}" * 12_000, "json_too_large"),
        (b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "json_too_large"),
        (b'{"a": "' + b"x" * 65_536 + b'"}', "json_too_large"),
        (('{"a": "' + "猫" * 30_000 + '"}').encode("utf-16"), "json_too_large"),
    ],
)
def test_hostile_sidecars_are_dropped_and_noted(data: bytes, note: str) -> None:
    assert read_sidecar(data) == Sidecar(notes=(note,))


def test_a_sidecar_of_just_the_limit() -> None:
    data = b'{"a": "' + b"x" * (65_536 - 9) + b'"}'
    assert len(data) == MAX_META_BYTES
    assert read_sidecar(data) == Sidecar(data.decode())
    assert read_sidecar(None) == Sidecar()


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ('"https://a.b/ü?x=1"', "https://a.b/ü?x=1"),
        (r'"a\ud800b"', "a\ufffdb"),
        (r'"a\u001b[31m\u0000\u202eb"', "a?[31m??b"),
        ("3", None),
        ("null", None),
        ("NaN", None),
        ('["x"]', None),
    ],
)
def test_the_url(value: str, url: str | None) -> None:
    assert read_sidecar(f'{{"url": {value}}}'.encode()).url == url


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": "' + b'\\"' * 32_000,
        b'"' * MAX_META_BYTES,
        b'{"a": "' + rb"\ud800" * 10_900 + b'"}',
        b"-" * MAX_META_BYTES,
        b'{"a": [' + b"-inf," * 13_000,
        b'{"a":1' + b',"a":1' * 10_900 + b"}",
        b'{"a": ' + b"9" * 65_000 + b"}",
    ],
    ids=lambda data: f"{data[:12]!r}",
)
def test_a_sidecar_cannot_take_long(data: bytes) -> None:
    """It takes milliseconds; what grows with the square of the size would take seconds."""
    begin = time.process_time()
    read_sidecar(data)
    assert time.process_time() - begin < 1


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.text(st.characters(exclude_categories=()), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=4), JSON), st.booleans())
def test_whatever_pythons_json_writes_is_read(fields: dict[str, object], escape: bool) -> None:
    """Python writes NaN and Infinity unasked, and with escapes, half characters."""
    data = json.dumps(fields, ensure_ascii=escape).encode("utf-8", "replace")
    sidecar = read_sidecar(data)
    assert sidecar.meta is not None
    assert strict(sidecar.meta).keys() == fields.keys()  # type: ignore[attr-defined]
    assert read_sidecar(sidecar.meta.encode()) == Sidecar(sidecar.meta, sidecar.url)


@given(st.binary(max_size=60) | st.text('{}[]":,\\ud8nNaIinf0- ', max_size=40).map(str.encode))
def test_any_bytes_give_strict_json_or_none(data: bytes) -> None:
    sidecar = read_sidecar(data)
    assert (sidecar.meta is None) == (sidecar.notes[:1] == ("json_unreadable",))
    if sidecar.meta is not None:
        assert isinstance(strict(sidecar.meta), dict)
