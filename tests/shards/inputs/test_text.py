"""Texts in files of their own, and in fields of sidecars."""

import json

import pytest

from shards.inputs.text import TXT, TextSource, text_source


@pytest.mark.parametrize(
    ("source", "parsed"),
    [
        ("txt", TXT),
        (".Caption", TextSource("caption")),
        ("blip.txt", TextSource("blip.txt")),
        ("json:alt text", TextSource(None, "alt text")),
        ("none", TextSource(None)),
    ],
)
def test_parse(source: str, parsed: TextSource) -> None:
    assert TextSource.parse(source) == parsed


@pytest.mark.parametrize("source", ["", "json", "json:", "jpg", "bmp", "yaml:a", "a/b", "a b"])
def test_what_is_no_place_of_texts_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match="no place of texts: expected an extension"):
        TextSource.parse(source)


def test_a_field_of_the_sidecar() -> None:
    source = TextSource.parse("json:caption")
    assert source.read(b"beside", json.dumps({"caption": "a dög"}).encode()) == "a dög".encode()
    assert source.read(b"beside", b'\xef\xbb\xbf{"caption": "a dog"}') == b"a dog"
    assert source.read(None, b'{"caption": ""}') == b""
    for meta in (None, b"", b"{}", b"[]", b'{"caption": 3}', b"{", b"\xff", b"[" * 200_000):
        assert source.read(b"beside", meta) is None
    assert source.read(None, b'{"caption": "\\ud800"}') == "\ufffd".encode()  # half a pair


@pytest.mark.parametrize(
    "sidecar",
    [
        '\ufeff{"caption": "two dogs", "n": NaN}'.encode(),
        '{"caption": "two dogs"}'.encode("utf-16"),
        b'{"caption": "two dogs", "n": -inf}\0\0',
        b'[{"caption": "two dogs"}]',
    ],
)
def test_a_sidecar_that_is_nearly_json_holds_its_text(sidecar: bytes) -> None:
    assert TextSource.parse("json:caption").read(None, sidecar) == b"two dogs"


def test_a_whole_sample_has_what_holds_its_text() -> None:
    assert TXT.roles == {"image", "text"}
    assert TextSource.parse("json:a").roles == {"image", "meta"}
    assert TextSource.parse("none").roles == {"image"}


def test_a_run_says_where_its_texts_stand() -> None:
    assert text_source({"input": {"text": "json:a"}}) == TextSource(None, "a")
    assert text_source({"seed": 0}) == TXT
