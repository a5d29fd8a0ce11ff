"""Frames of a video, at the mid-points of equal spans (BLIP §5.6): few are ever held at once.

What a container says of itself may be wrong, so its packets are counted, and the frames chosen by
their times. Only usual containers are read, from one file: a playlist cannot make FFmpeg open
others, on disk or in the network.
"""

import time
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import BinaryIO, NoReturn

import av
from av.container import InputContainer
from av.video.stream import VideoStream
from PIL import Image

from models.roles.video import midpoints
from shards.store import filesystem

_WHOLE = Fraction(9, 10)  # of the time that the container names; sound may go on a little longer

FRAMES_FOR_RETRIEVAL, FRAMES_FOR_QUESTIONS = 8, 16  # BLIP §5.6
TRUNCATED = "video_truncated"  # a note: what is there is used

_CONTAINERS = ",".join(
    ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "mpegts", "mpeg", "flv", "ogg", "gif")
)


class VideoReason(StrEnum):
    """Why there are no frames."""

    MISSING = "video_missing"
    EMPTY = "video_empty"
    UNDECODABLE = "video_undecodable"
    TOO_LARGE = "video_too_large"
    TIMEOUT = "video_timeout"


@dataclass(frozen=True, slots=True)
class VideoLimits:
    """Bounds on what a video may ask for."""

    size_bytes: int = 8 << 30
    pixels: int = 50_000_000  # of one frame
    packets: int = 2_000_000
    timeout_s: float = 120  # checked between packets and frames


@dataclass(frozen=True, slots=True)
class Frames:
    """Upright RGB frames in their order, or none and the reason; `note` tells of what is cut off.

    Frames repeat where the video has fewer than were asked for.
    """

    images: tuple[Image.Image, ...] = ()
    reason: VideoReason | None = None
    detail: str | None = None
    note: str | None = None


class _Refused(Exception):  # noqa: N818 - a signal within this file, not an error
    """A video that cannot be used, and why."""

    def __init__(self, reason: VideoReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def read_frames(url: str, count: int, limits: VideoLimits | None = None) -> Frames:
    """Read frames of a file, local or of any fsspec store; a bad video is a reason, never raises.

    A lost connection does raise.
    """
    chosen = limits or VideoLimits()
    fs, path = filesystem(url)
    try:
        size = fs.size(path)
        if size > chosen.size_bytes:
            detail = f"{size:,} bytes; at most {chosen.size_bytes:,} are read"
            return Frames(reason=VideoReason.TOO_LARGE, detail=detail)
        if not size:
            return Frames(reason=VideoReason.EMPTY, detail="the file is empty")
        with fs.open(path, "rb") as file:
            return _read(file, count, chosen)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return Frames(reason=VideoReason.MISSING, detail="no such file")
    except _Refused as refused:
        return Frames(reason=refused.reason, detail=refused.detail)


def _read(file: BinaryIO, count: int, limits: VideoLimits) -> Frames:
    clock = _Clock(limits.timeout_s)
    options = {"format_whitelist": _CONTAINERS}
    try:
        with av.open(file, "r", container_options=options, io_open=_no_other) as container:
            stream = _stream(container, limits)
            times = _times(container, stream, limits, clock)
            if not times:
                raise _Refused(VideoReason.EMPTY, "no frame in it")
            wanted = [times[place] for place in midpoints(len(times), count)]
            images = _decode(container, stream, wanted, clock)
            note = TRUNCATED if _is_cut(container, stream, times) else None
    except (av.FFmpegError, ValueError, OverflowError) as error:
        raise _Refused(VideoReason.UNDECODABLE, str(error)) from error
    if not images:
        raise _Refused(VideoReason.UNDECODABLE, "none of its frames can be decoded")
    return Frames(tuple(images), note=note)


def _no_other(url: str, *_: object) -> NoReturn:
    raise ValueError(f"it asks for another file: {url}")


def _stream(container: InputContainer, limits: VideoLimits) -> VideoStream:
    """Choose the video's pictures, once their size is known to be bearable."""
    if not container.streams.video:
        raise _Refused(VideoReason.EMPTY, "no pictures in it, sound at most")
    stream = container.streams.video[0]
    pixels = stream.codec_context.width * stream.codec_context.height
    if pixels > limits.pixels:
        size = f"{stream.codec_context.width} x {stream.codec_context.height}"
        raise _Refused(VideoReason.TOO_LARGE, f"{size} pixels; at most {limits.pixels:,} are read")
    stream.thread_count = 1  # another number gives the same frames, and more memory
    return stream


def _times(
    container: InputContainer, stream: VideoStream, limits: VideoLimits, clock: "_Clock"
) -> list[int]:
    """Give the times of all frames in order, by their packets alone: nothing is decoded."""
    times: list[int] = []
    try:
        for packet in container.demux(stream):
            clock.check()
            if packet.size and packet.pts is not None:
                times.append(packet.pts)
            if len(times) > limits.packets:
                raise _Refused(VideoReason.TOO_LARGE, f"more than {limits.packets:,} frames")
    except av.FFmpegError:
        if not times:
            raise
    return sorted(times)


def _is_cut(container: InputContainer, stream: VideoStream, times: list[int]) -> bool:
    """Tell whether fewer frames are there than the container says, by number or time."""
    if stream.frames > len(times):
        return True
    if stream.time_base is None or not container.duration or len(times) < 2:
        return False
    there = (times[-1] - times[0]) * (1 + 1 / (len(times) - 1)) * stream.time_base
    return bool(there < _WHOLE * Fraction(container.duration, av.time_base))


def _decode(
    container: InputContainer, stream: VideoStream, wanted: list[int], clock: "_Clock"
) -> list[Image.Image]:
    """Decode the frame of each time, or the nearest before it that can be decoded."""
    found: list[Image.Image] = []
    for number, at in enumerate(wanted):
        if number and at == wanted[number - 1] and found:
            found.append(found[-1])
            continue
        frame = _frame_at(container, stream, at, clock)
        if frame is not None:
            found.append(frame)
        elif found:
            found.append(found[-1])
    return [found[0]] * (len(wanted) - len(found)) + found if found else []


def _frame_at(
    container: InputContainer, stream: VideoStream, at: int, clock: "_Clock"
) -> Image.Image | None:
    """Seek the key frame before a time, and decode up to it."""
    newest = None
    try:
        container.seek(at, stream=stream, backward=True)
        for frame in container.decode(stream):
            clock.check()
            if frame.pts is not None and frame.pts > at and newest is not None:
                break
            newest = frame
            if frame.pts is not None and frame.pts >= at:
                break
    except av.FFmpegError:  # cut off there: what came before is the nearest
        pass
    return None if newest is None else _upright(newest)


def _upright(frame: av.VideoFrame) -> Image.Image:
    image: Image.Image = frame.to_image()
    turned = frame.rotation % 360
    return image.rotate(turned, expand=True) if turned else image


class _Clock:
    """Says when a video has taken too long."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s, self._end = timeout_s, time.monotonic() + timeout_s

    def check(self) -> None:
        if time.monotonic() > self._end:
            raise _Refused(VideoReason.TIMEOUT, f"not read within {self._timeout_s:g} s")
