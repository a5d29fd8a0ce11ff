"""Which files go to their codec as they are, and how much is done to find out what is missing."""

from typing import Any

import pytest

from pipeline.media.formats.mend import as_found, is_cut, mended


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_whole_files_are_not_touched(noise: Any, encode: Any, kind: str) -> None:
    data = encode(noise(), kind)
    source = as_found(data)
    assert source.data is data
    assert source.is_ended


def test_what_is_no_picture_is_not_mended() -> None:
    for data in (b"", b"BM", b"RIFF\0\0\0\0AVI ", b"no picture"):
        assert as_found(data).data is data
        assert mended(data) is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_what_is_cut(noise: Any, encode: Any, kind: str) -> None:
    data = encode(noise(), kind)
    assert not is_cut(data)
    assert not is_cut(data + b"\0more")
    for size in (len(data) - 1, len(data) // 2, 40):
        assert is_cut(data[:size])
