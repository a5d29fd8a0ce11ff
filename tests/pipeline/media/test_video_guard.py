"""A video that ends its decoder costs itself; all others come out as without a guard."""

import io
import json
import os
import signal
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import psutil
import pytest
from PIL import Image

import pipeline.media.video_guard
from pipeline.media.video import Frames, decode_frames, read_frames
from pipeline.media.video_container import VideoLimits, VideoReason
from pipeline.media.video_guard import VideoGuard
from pipeline.toy.video import write_frames

FRAMES = 12
LIMITS = VideoLimits(timeout_s=60)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "noise.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (FRAMES, 48, 64, 3), np.uint8)
    write_frames(path, map(Image.fromarray, noise), 64, 48)
    return path


@pytest.fixture(scope="module")
def guard() -> Iterator[VideoGuard]:
    with VideoGuard() as one:
        yield one
    assert psutil.Process().children() == []


def child() -> psutil.Process:
    (found,) = psutil.Process().children()
    return found


class Eventful(io.BytesIO):
    """A file of whose reads one, by its number, makes something happen first."""

    def __init__(self, data: bytes, number: int, event: Callable[[], None], *, once: bool = False):
        super().__init__(data)
        self._left, self._event, self._once = number, event, once

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left == 0 or (self._left < 0 and not self._once):
            self._event()
        return super().read(size)


def end(how: signal.Signals) -> Callable[[], None]:
    def event() -> None:
        os.kill(child().pid, how)

    return event


def same(guarded: Frames, expected: Frames) -> None:
    assert (guarded.reason, guarded.detail, guarded.note) == (
        expected.reason,
        expected.detail,
        expected.note,
    )
    assert [one.size for one in guarded.images] == [one.size for one in expected.images]
    for ours, theirs in zip(guarded.images, expected.images, strict=True):
        assert ours.tobytes() == theirs.tobytes()


def healthy(guard: VideoGuard, video: Path) -> None:
    same(read_frames(str(video), 4, decode=guard.decode), read_frames(str(video), 4))


@pytest.mark.parametrize("count", [1, 8, FRAMES + 5])
def test_as_without_a_guard(guard: VideoGuard, video: Path, count: int) -> None:
    same(read_frames(str(video), count, decode=guard.decode), read_frames(str(video), count))


@pytest.mark.parametrize("share", [0.02, 0.5, 0.8])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_reasons_are_as_without_a_guard(
    guard: VideoGuard, video: Path, tmp_path: Path, suffix: str, share: float
) -> None:
    whole = tmp_path / f"whole.{suffix}"
    write_frames(whole, iter(read_frames(str(video), FRAMES).images), 64, 48)
    data = whole.read_bytes()
    cut = io.BytesIO(data[: int(len(data) * share)])
    expected = decode_frames(cut, 4, LIMITS)
    assert expected.reason or expected.note  # else nothing is shown here
    same(guard.decode(cut, 4, LIMITS), expected)


def test_no_video_at_all(guard: VideoGuard, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    for name in ("text.mp4", "empty.mp4", "missing.mp4"):
        found = read_frames(str(tmp_path / name), 4, decode=guard.decode)
        same(found, read_frames(str(tmp_path / name), 4))


@pytest.mark.parametrize("number", [1, 2])
def test_a_crash_costs_one_video(guard: VideoGuard, video: Path, number: int) -> None:
    file = Eventful(video.read_bytes() * 8, number, end(signal.SIGSEGV))
    found = guard.decode(file, 4, LIMITS)
    assert found.reason is VideoReason.DECODER_CRASH
    assert "SIGSEGV" in (found.detail or "")
    healthy(guard, video)


def test_a_child_that_is_killed_once_costs_no_video(guard: VideoGuard, video: Path) -> None:
    file = Eventful(video.read_bytes(), 1, end(signal.SIGKILL), once=True)
    same(guard.decode(file, 4, LIMITS), read_frames(str(video), 4))


def test_a_hang_costs_one_video(
    guard: VideoGuard, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.media.video_guard, "GRACE_S", 0.5)
    file = Eventful(video.read_bytes(), 1, end(signal.SIGSTOP))
    found = guard.decode(file, 4, VideoLimits(timeout_s=0.5))
    assert found.reason is VideoReason.TIMEOUT
    assert "hangs" in (found.detail or "")
    healthy(guard, video)


def test_a_video_that_takes_its_time_says_so_itself(guard: VideoGuard, video: Path) -> None:
    found = read_frames(str(video), 4, VideoLimits(timeout_s=0), guard.decode)
    assert found.reason is VideoReason.TIMEOUT
    assert "hangs" not in (found.detail or "")


def test_greed_costs_one_video(guard: VideoGuard, video: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.mp4"
    write_frames(large, repeat(Image.new("RGB", (3840, 2160), (200, 30, 30)), 3), 3840, 2160)
    assert read_frames(str(large), 3, decode=guard.decode).reason is None
    small = VideoLimits(memory_bytes=16 << 20)
    found = read_frames(str(large), 3, small, guard.decode)
    assert found.reason in (VideoReason.TOO_LARGE, VideoReason.UNDECODABLE)
    healthy(guard, video)


@pytest.mark.parametrize("error", [OSError, TimeoutError, KeyboardInterrupt])
def test_what_the_file_raises_is_raised(
    guard: VideoGuard, video: Path, error: type[BaseException]
) -> None:
    def lose() -> None:
        raise error("the connection is lost")

    file = Eventful(video.read_bytes(), 1, lose)
    with pytest.raises(error, match="connection"):
        guard.decode(file, 4, LIMITS)
    healthy(guard, video)


ONE = {"sizes": [[1, 1]], "order": [0, 0], "note": None}
SPOKEN = {
    "silence": [],
    "no_json": [b"{"],
    "no_answer": [b"7"],
    "an_unknown_reason": [json.dumps({"reason": "bored", "detail": ""}).encode()],
    "before_the_file": [b'{"start": -1}'],
    "after_the_file": [b'{"start": 1000000000}'],
    "no_place": [b'{"start": "here"}'],
    "too_many_frames": [json.dumps(ONE | {"order": [0] * 9}).encode(), b"123"],
    "a_frame_that_is_none": [json.dumps(ONE | {"order": [0, 3]}).encode(), b"123"],
    "too_few_pixels": [json.dumps(ONE).encode(), b"12"],
    "too_long": [b" " * 100_000],
    "too_many_pixels": [json.dumps(ONE | {"sizes": [[9000, 9000]]}).encode(), b"1" * 13_000_000],
}


@pytest.mark.parametrize("spoken", list(SPOKEN))
def test_a_child_that_was_taken_over_is_not_believed(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoken: str
) -> None:
    program = f"""
import sys
from multiprocessing.connection import Connection
pipe = Connection(int(sys.orig_argv[-1]))
pipe.send_bytes(b"ready")
pipe.recv_bytes()
for message in {SPOKEN[spoken]!r}:
    pipe.send_bytes(message)
sys.exit(0)
"""
    (tmp_path / "sitecustomize.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with VideoGuard() as guard, video.open("rb") as file:
        found = guard.decode(cast("BinaryIO", file), 2, LIMITS)
    assert found.reason is VideoReason.DECODER_CRASH
    assert found.images == ()
