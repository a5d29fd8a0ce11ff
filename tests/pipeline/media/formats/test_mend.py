"""Which files go to their codec as they are, and how much is done to find out what is missing."""

import time
from typing import Any

import pytest

from pipeline.media.effort import MOST_SCANNED
from pipeline.media.formats import jpeg
from pipeline.media.formats.mend import as_found, has_all_pixels, mended


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


def test_a_costly_picture_is_not_decoded_again_and_again(noise: Any, encode: Any) -> None:
    data = encode(noise(), "JPEG", progressive=True)
    scans = sum(segment.kind == jpeg.SCAN for segment in jpeg.segments(data))
    most = MOST_SCANNED * 1_000_000 // (scans * jpeg.DECODINGS)
    assert has_all_pixels(data, most // 3)
    start = time.process_time()
    assert not has_all_pixels(data, most * 2)
    assert time.process_time() - start < 0.1


def test_the_other_codecs_tell_what_is_missing(noise: Any, encode: Any) -> None:
    assert has_all_pixels(encode(noise(), "PNG")[:-12], 64 * 48)
