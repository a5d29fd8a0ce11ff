"""Containers of videos: frames are listed without decoding one, and given once each."""

import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.media.video import read_frames
from pipeline.media.video_container import (
    VideoLimits,
    VideoReason,
    VideoRefused,
    lacks_index,
    open_video,
)
from pipeline.toy.video import write_frames

FRAMES = 12


@pytest.fixture(scope="module", params=["mp4", "mkv", "avi", "ts"])
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames that no encoder makes small, so that a file is cut where frames are."""
    path = tmp_path_factory.mktemp("video") / f"noise.{request.param}"
    rng = np.random.default_rng(0)
    noise = (rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(FRAMES))
    write_frames(path, map(Image.fromarray, noise), 64, 64, key_every=5)
    return path


def test_frames_are_listed_and_given_in_order(video: Path) -> None:
    with av.open(str(video)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with video.open("rb") as file, open_video(file, VideoLimits()) as opened:
        times = list(opened.index.times)
        assert len(times) == FRAMES == len(expected)
        assert times == sorted(set(times))
        assert not opened.index.is_cut
        places = [0, 3, 4, 11]
        found = [frame.to_ndarray(format="rgb24") for frame in opened.frames(places)]
    for place, pixels in zip(places, found, strict=True):
        assert np.array_equal(pixels, expected[place])


def test_what_is_no_video_is_refused() -> None:
    with pytest.raises((VideoRefused, av.FFmpegError)), open_video(io.BytesIO(b"x"), VideoLimits()):
        pass


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_an_mp4_without_its_index_is_truncated(tmp_path: Path, video: Path, share: float) -> None:
    """Encoders write it last: what is cut off has none."""
    data = video.read_bytes()
    if video.suffix != ".mp4":
        assert not lacks_index(io.BytesIO(data[: round(share * len(data))]))
        return
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: round(share * data.index(b"moov"))])
    assert read_frames(str(cut), 4).reason is VideoReason.TRUNCATED
    start = data.index(b"mdat") - 4
    cut.write_bytes(data[:start] + b"\0\0\0\0" + data[start + 4 : round(share * len(data))])
    assert read_frames(str(cut), 4).reason is VideoReason.TRUNCATED
    cut.write_bytes(data[: data.index(b"moov") + round(100 * share)])
    assert read_frames(str(cut), 4).reason is VideoReason.TRUNCATED


def test_an_mp4_with_a_broken_index_is_not_truncated(tmp_path: Path) -> None:
    path = tmp_path / "broken.mp4"
    kind = b"\0\0\0\x10ftypisom\0\0\0\0"
    frames = b"\0\0\0\1mdat" + (116).to_bytes(8) + bytes(100)  # its length stands behind its kind
    index = b"\0\0\0\x18moov\0\0\0\x10mvhd\xff" + bytes(7)
    path.write_bytes(kind + frames + index)
    assert read_frames(str(path), 4).reason in (VideoReason.UNDECODABLE, VideoReason.EMPTY)
