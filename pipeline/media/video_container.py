"""A video's container: which frames it has, and how to get at them.

What a container says of itself may be wrong, so its packets are counted, and frames are found by
their own times. Only usual containers are read, each from one file: a playlist cannot make FFmpeg
open others, on disk or in the network.
"""

import os
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from operator import itemgetter
from typing import BinaryIO, NoReturn

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

_CONTAINERS = ",".join(
    ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "mpegts", "mpeg", "flv", "ogg", "gif")
)
_COVER = Disposition.attached_pic  # one picture beside sound
_MOST_BOXES = 10_000  # of an MP4, that are looked through
_WHOLE = 0.9  # of the time that a container names: sound may go on a little longer


class VideoReason(StrEnum):
    """Why there are no frames; of what is truncated there may be some."""

    MISSING = "video_missing"
    EMPTY = "video_empty"
    UNDECODABLE = "video_undecodable"
    TRUNCATED = "video_truncated"
    TOO_LARGE = "video_too_large"
    TIMEOUT = "video_timeout"
    DECODER_CRASH = "video_decoder_crash"


@dataclass(frozen=True, slots=True)
class VideoLimits:
    """Bounds on what a video may ask for."""

    size_bytes: int = 8 << 30
    pixels: int = 8192 * 4352  # of one frame: H.264's and HEVC's largest
    frames: int = 2_000_000  # in the file: 18 hours at 30 a second
    timeout_s: float = 120  # checked between packets and frames
    memory_bytes: int = 4 << 30  # for decoding; held to under guard alone


class VideoRefused(Exception):  # noqa: N818 - a signal to `read_frames`, not an error
    """A video that cannot be used, and why."""

    def __init__(self, reason: VideoReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@contextmanager
def open_video(file: BinaryIO, limits: VideoLimits) -> Iterator["Video"]:
    """Open a file as a video; Refused or FFmpeg's own error where it is none."""
    with _open(file) as container:
        yield Video(file, container, limits)


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """The times of all frames, in order, and whether some are missing.

    `keys`: of frames that need no other to be decoded, in order, each with its time of decoding,
    before which a search for it must begin.
    """

    times: Sequence[int]
    keys: Sequence[tuple[int, int]]
    is_cut: bool


class Video:
    """An open video: `index` tells of its frames."""

    def __init__(self, file: BinaryIO, container: InputContainer, limits: VideoLimits) -> None:
        """List the frames; Refused where there are none, or too much is asked for."""
        self._file, self._container, self._limits = file, container, limits
        self._clock = _Clock(limits.timeout_s)
        self._stream = _stream(container, limits)
        self.index = _index(container, self._stream, limits, self._clock)

    def frames(self, numbers: Sequence[int]) -> Iterator[av.VideoFrame]:
        """Decode the frames of some numbers, from 0, in order and each once.

        For one that cannot be decoded comes the nearest before it, or else after it.
        """
        # elsewhere what a search finds may be another frame, or under another time
        if self._container.format.name.startswith(("mov,", "matroska,")):
            return self._jump(numbers)
        return self._read_through(numbers)

    def _jump(self, numbers: Sequence[int]) -> Iterator[av.VideoFrame]:
        """Decode each from the key frame before it; the rest is skipped."""
        shown = coming = None  # the frame at hand, and the one after it
        frames: Iterator[av.VideoFrame] = iter(())
        for number in numbers:
            wanted = self.index.times[number]
            before = bisect_right(self.index.keys, wanted, key=itemgetter(0))
            key, decoded_at = self.index.keys[before - 1] if before else (wanted, wanted)
            if coming is None or key > _time(coming):
                self._container.seek(decoded_at, stream=self._stream)
                frames = _decode(self._container, self._stream, self._clock)
                coming = next(frames, None)
            while coming is not None and _time(coming) <= wanted:
                shown, coming = coming, next(frames, None)
            yield _there(shown or coming)

    def _read_through(self, numbers: Sequence[int]) -> Iterator[av.VideoFrame]:
        """Decode all frames up to the last chosen one, and count them: their times may be wrong."""
        with _open(self._file) as container:  # anew: not every container can be wound back
            stream = _stream(container, self._limits)
            frames = enumerate(_decode(container, stream, self._clock))
            current, shown = -1, None
            for number in numbers:
                while current < number and (decoded := next(frames, None)) is not None:
                    current, shown = decoded
                yield _there(shown)


def lacks_index(file: BinaryIO) -> bool:
    """Walk the boxes of an MP4 (ISO 14496-12, 4.2): does it end without a whole moov?

    A length of 0 stands where a recording was broken off, before the true one was known.
    """
    size_bytes, start = file.seek(0, os.SEEK_END), 0
    for _ in range(_MOST_BOXES):
        file.seek(start)
        header = file.read(16)
        if not start and header[4:8] != b"ftyp":
            return False
        length, kind = int.from_bytes(header[:4]), header[4:8]
        if length == 1:  # a longer one stands behind the kind
            length = int.from_bytes(header[8:16])
        start += length
        if kind == b"moov":
            return start > size_bytes
        if not length or start >= size_bytes:
            return True
    return False


def _open(file: BinaryIO) -> InputContainer:
    file.seek(0)
    return av.open(
        file,
        "r",
        container_options={"format_whitelist": _CONTAINERS},
        metadata_errors="replace",
        io_open=_no_other,
    )


def _no_other(url: str, *_: object) -> NoReturn:
    raise ValueError(f"it asks for another file: {url}")


def _stream(container: InputContainer, limits: VideoLimits) -> VideoStream:
    """Choose the video's pictures, once their size is known to be bearable."""
    moving = [s for s in container.streams.video if not s.disposition & _COVER]
    if not moving:
        raise VideoRefused(VideoReason.EMPTY, "no pictures in it, sound at most")
    stream, codec = moving[0], moving[0].codec_context
    if codec is None:
        raise VideoRefused(VideoReason.UNDECODABLE, "its codec is not known")
    if codec.width * codec.height > limits.pixels:
        size = f"frames of {codec.width} x {codec.height} pixels"
        raise VideoRefused(VideoReason.TOO_LARGE, f"{size}; at most {limits.pixels:,} are read")
    codec.options = {"max_pixels": str(limits.pixels)}  # the size may change on the way
    codec.thread_count = 1  # another number gives the same frames, and takes more memory
    return stream


def _index(
    container: InputContainer, stream: VideoStream, limits: VideoLimits, clock: "_Clock"
) -> FrameIndex:
    """List frames by their packets alone: nothing is decoded."""
    times: list[int] = []
    keys: list[tuple[int, int]] = []
    try:
        for packet in container.demux(stream):
            clock.check()
            at = packet.dts if packet.pts is None else packet.pts
            if not packet.size or at is None or packet.is_discard:
                continue
            times.append(at)
            if packet.is_keyframe:
                keys.append((at, at if packet.dts is None else packet.dts))
            if len(times) > limits.frames:
                raise VideoRefused(VideoReason.TOO_LARGE, f"more than {limits.frames:,} frames")
    except av.FFmpegError:  # cut off there
        if not times:
            raise
    if not times:
        raise VideoRefused(VideoReason.EMPTY, "no frame in it")
    times.sort()
    return FrameIndex(times, sorted(keys), _is_cut(container, stream, times))


def _is_cut(container: InputContainer, stream: VideoStream, times: Sequence[int]) -> bool:
    """Check for fewer frames than the container says there are, by number or time."""
    if stream.frames > len(times):
        return True
    stated_s = (container.duration or 0) / av.time_base
    if stream.time_base is None or len(times) < 2:
        return False
    step = (times[-1] - times[0]) / (len(times) - 1)
    return float((times[-1] - times[0] + step) * stream.time_base) < _WHOLE * stated_s


def _decode(
    container: InputContainer, stream: VideoStream, clock: "_Clock"
) -> Iterator[av.VideoFrame]:
    """Decode from here on; a packet that is damaged gives no frame."""
    packets = container.demux(stream)
    while True:
        clock.check()
        try:
            packet = next(packets, None)
        except av.FFmpegError:  # cut off there
            return
        if packet is None:
            return
        try:
            yield from stream.decode(packet)
        except av.InvalidDataError:
            continue


def _there(frame: av.VideoFrame | None) -> av.VideoFrame:
    if frame is None:
        raise VideoRefused(VideoReason.UNDECODABLE, "none of its frames can be decoded")
    return frame


def _time(frame: av.VideoFrame) -> int:
    return frame.pts or 0


class _Clock:
    """Says when a video has taken too long."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s, self._end = timeout_s, time.monotonic() + timeout_s

    def check(self) -> None:
        if time.monotonic() > self._end:
            raise VideoRefused(VideoReason.TIMEOUT, f"not read within {self._timeout_s:g} s")
