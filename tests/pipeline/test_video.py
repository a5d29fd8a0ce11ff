"""Frames of videos: the right ones, and a reason for whatever is no video, or only half of one."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from models.roles.video import midpoints
from pipeline.toy_video import write_frames
from pipeline.video import Frames, VideoLimits, VideoReason, read_frames

FRAMES = 30


def greys(count: int = FRAMES, width: int = 32, height: int = 16) -> Iterator[Image.Image]:
    """Draw frame n in a grey of its own, so that a frame tells its number."""
    for number in range(count):
        yield Image.new("RGB", (width, height), (8 * number,) * 3)


def numbers(found: Frames) -> list[int]:
    return [round(float(np.asarray(image).mean()) / 8) for image in found.images]


@pytest.fixture(scope="module", params=["mp4", "mkv", "avi", "webm"])
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / f"greys.{request.param}"
    if request.param == "webm":
        write_vp9(path)
    else:
        write_frames(path, greys(), 32, 16)
    return path


def write_vp9(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for picture in greys():
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())


@pytest.mark.parametrize("count", [1, 8, 16, FRAMES, 40])
def test_frames_are_the_midpoints_of_equal_spans(video: Path, count: int) -> None:
    found = read_frames(str(video), count)
    assert (found.reason, found.note) == (None, None)
    assert numbers(found) == midpoints(FRAMES, count)
    assert {image.size for image in found.images} == {(32, 16)}


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_what_is_there_of_a_video_that_is_cut_off_is_used(tmp_path: Path, share: float) -> None:
    whole = tmp_path / "whole.mkv"
    write_frames(whole, noisy(), 64, 64, key_every=5)
    data = whole.read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(data[: round(share * len(data))])
    found = read_frames(str(cut), 8)
    assert found.reason is None
    assert found.note == "video_truncated"
    assert len(found.images) == 8


def noisy() -> Iterator[Image.Image]:
    """Draw frames that no encoder makes small, so that a file is cut where frames are."""
    rng = np.random.default_rng(0)
    for _ in range(FRAMES):
        yield Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))


def test_no_cut_raises(tmp_path: Path) -> None:
    """Wherever a file ends, there are frames or there is a reason."""
    for extension in ("mp4", "mkv", "avi"):
        whole = tmp_path / f"whole.{extension}"
        write_frames(whole, greys(12), 32, 16)
        data = whole.read_bytes()
        for end in range(0, len(data), max(1, len(data) // 25)):
            cut = tmp_path / f"cut.{extension}"
            cut.write_bytes(data[:end])
            found = read_frames(str(cut), 4)
            assert len(found.images) == (0 if found.reason else 4)
            assert (found.reason is None) or found.detail


def test_flipped_bytes_never_raise(tmp_path: Path) -> None:
    whole = tmp_path / "whole.mp4"
    write_frames(whole, greys(12), 32, 16)
    data = bytearray(whole.read_bytes())
    rng = np.random.default_rng(1)
    for _ in range(60):
        spoiled = bytearray(data)
        for place in rng.integers(0, len(data), 8):
            spoiled[place] ^= int(rng.integers(1, 256))
        path = tmp_path / "spoiled.mp4"
        path.write_bytes(spoiled)
        found = read_frames(str(path), 4, VideoLimits(timeout_s=20))
        assert len(found.images) == (0 if found.reason else 4)


def test_each_kind_of_bad_file_has_its_reason(tmp_path: Path) -> None:
    contents = {
        "empty.mp4": b"",
        "text.mp4": b"this is no video " * 100,
        "picture.mp4": b"\x89PNG\r\n\x1a\n" + b"\0" * 100,
        "list.mp4": b"#EXTM3U\n#EXTINF:1,\nother.mp4\n",
        "script.mp4": b"ffconcat version 1.0\nfile other.mp4\n",
    }
    write_frames(tmp_path / "other.mp4", greys(4), 32, 16)
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    found = {name: read_frames(str(tmp_path / name), 4) for name in contents}
    reasons = {name: one.reason for name, one in found.items()}
    assert reasons.pop("empty.mp4") is VideoReason.EMPTY
    assert set(reasons.values()) == {VideoReason.UNDECODABLE}
    assert read_frames(str(tmp_path / "none.mp4"), 4).reason is VideoReason.MISSING
    assert read_frames(str(tmp_path), 4).reason is VideoReason.MISSING


def test_sound_alone_has_no_frames(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44_100)
        for _ in range(3):
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate = 44_100
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found = read_frames(str(path), 4)
    assert found.reason is VideoReason.EMPTY


def test_a_container_without_frames_has_none(tmp_path: Path) -> None:
    path = tmp_path / "none.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        container.start_encoding()
    assert read_frames(str(path), 4).reason in (VideoReason.EMPTY, VideoReason.UNDECODABLE)


def test_limits_are_kept(video: Path) -> None:
    tight = {
        "size": VideoLimits(size_bytes=100),
        "pixels": VideoLimits(pixels=32 * 16 - 1),
        "frames": VideoLimits(frames=FRAMES - 1),
    }
    for limits in tight.values():
        assert read_frames(str(video), 4, limits).reason is VideoReason.TOO_LARGE
    assert read_frames(str(video), 4, VideoLimits(timeout_s=0)).reason is VideoReason.TIMEOUT


def test_frames_of_uneven_times_are_counted_not_timed(tmp_path: Path) -> None:
    """Variable frame rate: a long pause in the middle is one frame among the others."""
    path = tmp_path / "pause.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for number, picture in enumerate(greys(10)):
            frame = av.VideoFrame.from_image(picture)
            frame.pts = number if number < 5 else number + 1_000
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert numbers(read_frames(str(path), 5)) == midpoints(10, 5)
