"""Names stay inside their folder, short, and apart."""

import re

from hypothesis import given
from hypothesis import strategies as st

from shards.naming import encode_name, key_text


def test_known_names() -> None:
    assert encode_name("a/b%c.d~é") == "a%2Fb%25c%2Ed%7E%C3%A9"
    assert encode_name(b"\xff-_9Z") == "%FF-_9Z"
    assert encode_name("../x") == "%2E%2E%2Fx"
    assert key_text(b"caf\xe9 \xc3\xa9%") == "caf%E9 é%"


def test_limit_is_150_bytes() -> None:
    assert encode_name("x" * 150) == "x" * 150
    long = encode_name("x" * 151)
    assert re.fullmatch(r"x{100}~[0-9a-f]{16}", long)
    assert long != encode_name("x" * 152)
    assert len(encode_name("猫" * 60)) == 117


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_names_are_plain_and_distinct(one: bytes, two: bytes) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_%~-]*", encode_name(one))
    assert len(encode_name(one)) <= 150
    assert (encode_name(one) == encode_name(two)) == (one == two)


@given(st.binary(max_size=100))
def test_key_text_is_utf8(raw: bytes) -> None:
    key_text(raw).encode("utf-8")
