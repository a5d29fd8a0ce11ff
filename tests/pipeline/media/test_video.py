"""Frames of videos: the right ones, and a reason for whatever is no video, or only half of one."""

import itertools
import struct
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from av.video.frame import PictureType
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.media.video import Frames, midpoints, read_frames
from pipeline.media.video_container import VideoLimits, VideoReason
from pipeline.toy.video import write_frames

FRAMES = 30


def greys(count: int = FRAMES, width: int = 32, height: int = 16) -> Iterator[Image.Image]:
    """Draw frame n in a grey of its own, so that a frame tells its number."""
    for number in range(count):
        yield Image.new("RGB", (width, height), (8 * number,) * 3)


def numbers(found: Frames) -> list[int]:
    return [round(float(np.asarray(image).mean()) / 8) for image in found.images]


CONTAINERS = {
    "x264.mp4": ("libx264", "yuv420p"),
    "fragments.mp4": ("libx264", "yuv420p"),
    "ten_bit.mp4": ("libx264", "yuv422p10le"),
    "x264.mkv": ("libx264", "yuv420p"),
    "lossless.mkv": ("ffv1", "yuv444p"),
    "vp9.webm": ("libvpx-vp9", "yuv420p"),
    "x264.avi": ("libx264", "yuv420p"),  # its times are wrong where frames are out of order
    "mpeg4.avi": ("mpeg4", "yuv420p"),
    "x264.ts": ("libx264", "yuv420p"),
    "mpeg2.mpg": ("mpeg2video", "yuv420p"),  # whose frames cannot be searched for
    "flash.flv": ("flv", "yuv420p"),
    "palette.gif": ("gif", "gray"),
    "jpegs.mov": ("mjpeg", "yuvj420p"),
}


@pytest.fixture(scope="module", params=list(CONTAINERS))
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / request.param
    codec, pixels = CONTAINERS[request.param]
    flags = {"movflags": "frag_keyframe+empty_moov"} if path.stem == "fragments" else {}
    with av.open(str(path), "w", options=flags) as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 32, 16, pixels
        # frames that need later ones, and in fragments key frames that are near each other
        stream.options = {"g": "12"}
        if codec == "libx264":
            stream.options |= {"bf": "3", "b_strategy": "2"}
        for number, picture in enumerate(greys()):
            frame = av.VideoFrame.from_image(picture)
            if flags and number in (9, 11, 14):
                frame.pict_type = PictureType.I
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


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
    assert found.note is VideoReason.TRUNCATED
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


def silence() -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(
        np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
    )
    frame.sample_rate = 44_100
    return frame


def test_sound_alone_has_no_frames(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44_100)
        for _ in range(3):
            container.mux(stream.encode(silence()))
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


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [
        ((1, 0, 0, 1), "top left"),
        ((0, 1, -1, 0), "top right"),  # a point right of another comes to lie below it
        ((-1, 0, 0, -1), "bottom right"),
        ((0, -1, 1, 0), "bottom left"),
    ],
)
def test_what_was_filmed_turned_is_turned_upright(
    tmp_path: Path, matrix: tuple[int, ...], corner: str
) -> None:
    """The matrix of ISO 14496-12's track header: x' = a x + c y, y' = b x + d y, y downwards."""
    path = tmp_path / "turned.mp4"
    marked = Image.new("RGB", (64, 32), "black")
    marked.paste("white", (0, 0, 16, 16))  # the top left of what is stored
    write_frames(path, [marked] * 4, 64, 32)
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40  # after version, flags, times, id, duration, layer, volume
    a, b, c, d = (value * 0x10000 for value in matrix)
    data[start : start + 20] = struct.pack(">5i", a, b, 0, c, d)
    path.write_bytes(data)
    image = np.asarray(read_frames(str(path), 1).images[0].convert("L"))
    assert image.shape == ((32, 64) if matrix[0] else (64, 32))
    row, column = np.argwhere(image > 128).mean(0) / image.shape
    assert corner == f"{'top' if row < 0.5 else 'bottom'} {'left' if column < 0.5 else 'right'}"


def test_large_frames_are_held_small(tmp_path: Path) -> None:
    path = tmp_path / "large.mp4"
    write_frames(path, [Image.new("RGB", (3840, 2160), "teal")] * 2, 3840, 2160)
    assert {image.size for image in read_frames(str(path), 2).images} == {(1920, 1080)}
    half_hd = tmp_path / "half.mp4"
    write_frames(half_hd, [Image.new("RGB", (1280, 720), "teal")] * 2, 1280, 720)
    assert {image.size for image in read_frames(str(half_hd), 2).images} == {(1280, 720)}


def test_a_size_that_grows_on_the_way_is_limited_too(tmp_path: Path) -> None:
    """Each part of a transport stream may have a size of its own; headers tell the first one."""
    small, large = tmp_path / "small.ts", tmp_path / "large.ts"
    write_frames(small, greys(4), 32, 16)
    write_frames(large, greys(4, 640, 480), 640, 480)
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    limits = VideoLimits(pixels=640 * 480 - 1)
    assert {one.size for one in read_frames(str(both), 8).images} == {(32, 16), (640, 480)}
    assert {one.size for one in read_frames(str(both), 8, limits).images} == {(32, 16)}


def test_a_cover_beside_sound_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=44_100)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 16, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_image(next(greys()))))
        container.mux(sound.encode(silence()))
        container.mux(sound.encode())
    with av.open(str(path)) as written:
        assert len(written.streams.video) == 1
    found = read_frames(str(path), 4)
    assert found.reason is VideoReason.EMPTY
    assert "sound" in str(found.detail)


def test_frames_that_the_file_cuts_away_are_not_counted(tmp_path: Path) -> None:
    """An edit list may begin later than the first frame; players show none before."""
    path = tmp_path / "trimmed.mp4"
    write_frames(path, greys(), 32, 16)
    data = bytearray(path.read_bytes())
    start = data.index(b"elst") + 4 + 12  # after version, flags, how many, and the first's length
    (begin,) = struct.unpack_from(">i", data, start)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate
        assert stream.time_base
        per_frame = int(1 / (stream.average_rate * stream.time_base))
    struct.pack_into(">i", data, start, begin + 5 * per_frame)
    path.write_bytes(data)
    assert numbers(read_frames(str(path), FRAMES - 5)) == list(range(5, FRAMES))


def test_names_that_are_no_utf_8_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "named.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "TITLE"
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_image(next(greys()))))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"TITLE", b"\xff\xfe\xfd\xfc\xfb"))
    assert len(read_frames(str(path), 1).images) == 1


@pytest.mark.parametrize("stated", [1, 1_000_000])
def test_a_header_that_lies_about_the_number_changes_no_frame(tmp_path: Path, stated: int) -> None:
    """AVI's header tells a number of frames, and the stream's too; there are others."""
    path = tmp_path / "liar.avi"
    write_frames(path, greys(), 32, 16)
    data = bytearray(path.read_bytes())
    for name, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        start = data.index(name) + offset
        data[start : start + 4] = struct.pack("<I", stated)
    path.write_bytes(data)
    found = read_frames(str(path), 8)
    assert numbers(found) == midpoints(FRAMES, 8)
    assert (found.note is VideoReason.TRUNCATED) == (stated > FRAMES)


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


def slow_midpoints(frames: int, count: int) -> list[int]:
    """Walk through the video in steps of 1 / count of a frame, noting the middle of each span."""
    chosen, ticks_per_span = [], frames  # a frame has `count` ticks, so a span has `frames`
    for span in range(count):
        middle = span * ticks_per_span + ticks_per_span / 2
        frame = 0
        while (frame + 1) * count <= middle:
            frame += 1
        chosen.append(frame)
    return chosen


@given(frames=st.integers(1, 400), count=st.integers(1, 40))
def test_midpoints_equal_a_walk(frames: int, count: int) -> None:
    chosen = midpoints(frames, count)
    assert chosen == slow_midpoints(frames, count)
    assert chosen == sorted(chosen)
    assert all(0 <= frame < frames for frame in chosen)
    gaps = {second - first for first, second in itertools.pairwise(chosen)}
    assert not gaps or max(gaps) - min(gaps) <= 1
    # the ends are missed alike, but for rounding
    assert abs(chosen[0] - (frames - 1 - chosen[-1])) <= 1


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        # a whole-number step would take 0 to 7 of 15, only the first of 5, and stop at 287 of 333
        (15, [0, 2, 4, 6, 8, 10, 12, 14]),
        (5, [0, 0, 1, 2, 2, 3, 4, 4]),
        (333, [20, 62, 104, 145, 187, 228, 270, 312]),
        (8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (1, [0] * 8),
    ],
)
def test_midpoints_of_awkward_lengths(frames: int, expected: list[int]) -> None:
    assert midpoints(frames, 8) == expected


def test_no_frames_are_refused() -> None:
    for frames, count in ((0, 8), (8, 0), (-1, 1)):
        with pytest.raises(ValueError, match="at least 1"):
            midpoints(frames, count)
