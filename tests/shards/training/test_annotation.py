"""Texts of human-annotated samples, whatever stands in a sidecar."""

from typing import Any

import pytest

from shards.inputs.reader import RawSample
from shards.training.annotation import SourceText, annotated_texts


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"txt": b"  a\tred \n ring "}, [("a red ring", "human")]),
        ({"txt": b"\xef\xbb\xbfone"}, [("one", "human")]),
        ({"txt": b"x", "json": b'{"texts": ["one", " two  words"]}'}, ["one", "two words"]),
        ({"json": b'{"texts": [{"text": "one", "origin": "web"}]}'}, [("one", "web")]),
        ({"json": b'{"texts": [{"text": "one"}, 7, null, {"text": 3}, ""]}'}, ["one"]),
        ({"json": b'{"texts": ["\\ud800", "one"]}'}, ["one"]),
        ({"txt": b"one", "json": b'{"texts": []}'}, ["one"]),
        ({"txt": b"one", "json": b'{"texts": "two"}'}, ["one"]),
        ({"txt": b"one", "json": b"[1, 2]"}, ["one"]),
        ({"txt": b"one", "json": b"no json"}, ["one"]),
        ({"txt": b"one", "json": b"[" * 100_000}, ["one"]),
        ({"txt": b" \n"}, "text_empty"),
        ({"txt": b"\xff"}, "text_not_utf8"),
        ({"json": b'{"texts": ["\\ud800"]}'}, "text_missing"),
        ({}, "text_missing"),
    ],
)
def test_texts_or_the_reason(members: Any, expected: Any) -> None:
    text, meta = members.get("txt"), members.get("json")
    raw = RawSample(0, "k", b"image", "jpg", text, meta, None, None, 0)
    if isinstance(expected, str):
        assert annotated_texts(raw) == ((), expected)
    else:
        pairs = [item if isinstance(item, tuple) else (item, "human") for item in expected]
        assert annotated_texts(raw) == (tuple(SourceText(*pair) for pair in pairs), "")
