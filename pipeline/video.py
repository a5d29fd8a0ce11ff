"""Frames of a video, at the mid-points of equal spans (BLIP §5.6): few are ever held at once.

Spans are of frames, as in the original, not of seconds. What a container says of itself may be
wrong, so its packets are counted, and frames are found by their own times. Only usual containers
are read, each from one file: a playlist cannot make FFmpeg open others, on disk or in the network.
"""

import math
import os
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import itemgetter
from typing import BinaryIO, NoReturn

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from PIL import Image

from models.roles.video import midpoints
from shards.store import filesystem

FRAMES_FOR_RETRIEVAL, FRAMES_FOR_QUESTIONS = 8, 16  # BLIP §5.6

# A larger frame is reduced by a whole number, to no less than this: no model reads more than a
# quarter of it, and so the resize that follows has enough to average.
KEPT_PIXELS = 1_000_000

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


@dataclass(frozen=True, slots=True)
class VideoLimits:
    """Bounds on what a video may ask for."""

    size_bytes: int = 8 << 30
    pixels: int = 8192 * 4352  # of one frame: H.264's and HEVC's largest
    frames: int = 2_000_000  # in the file: 18 hours at 30 a second
    timeout_s: float = 120  # checked between packets and frames


@dataclass(frozen=True, slots=True)
class Frames:
    """Upright RGB frames in their order, or none and the reason.

    Frames repeat where the video has fewer than were asked for. `note` is TRUNCATED where a part is
    missing and what is there was used.
    """

    images: tuple[Image.Image, ...] = ()
    reason: VideoReason | None = None
    detail: str | None = None
    note: VideoReason | None = None


class _Refused(Exception):  # noqa: N818 - a signal within this file, not an error
    """A video that cannot be used, and why."""

    def __init__(self, reason: VideoReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def read_frames(url: str, count: int, limits: VideoLimits | None = None) -> Frames:
    """Read frames of a file, local or of any fsspec store; a bad video is a reason, never raises.

    A lost connection does raise, and MemoryError: the size was within the limits.
    """
    chosen = limits or VideoLimits()
    fs, path = filesystem(url)
    try:
        size = fs.size(path)
        if size > chosen.size_bytes:
            detail = f"{size:,} bytes; at most {chosen.size_bytes:,} are read"
            return Frames(reason=VideoReason.TOO_LARGE, detail=detail)
        with fs.open(path, "rb") as file:
            if not size:
                return Frames(reason=VideoReason.EMPTY, detail="0 bytes")
            return _read(file, count, chosen)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return Frames(reason=VideoReason.MISSING, detail="no such file")
    except _Refused as refused:
        return Frames(reason=refused.reason, detail=refused.detail)


def _read(file: BinaryIO, count: int, limits: VideoLimits) -> Frames:
    """Read an open file; whatever FFmpeg makes of hostile bytes becomes a reason."""
    try:
        return _choose(file, count, limits)
    except av.FFmpegError as error:
        refused = _Refused(VideoReason.UNDECODABLE, error.strerror or str(error))
    except _Refused as error:
        refused = error
    except (OSError, MemoryError):
        raise
    except Exception as error:  # no list of what a codec may raise on hostile bytes is complete
        detail = f"{type(error).__name__}: {error}"[:200]
        refused = _Refused(VideoReason.UNDECODABLE, detail)
    if refused.reason in (VideoReason.EMPTY, VideoReason.UNDECODABLE) and _lacks_index(file):
        detail = "an MP4 that ends before its index, which tells where frames are"
        refused = _Refused(VideoReason.TRUNCATED, detail)
    raise refused


def _choose(file: BinaryIO, count: int, limits: VideoLimits) -> Frames:
    clock = _Clock(limits.timeout_s)
    with _open(file) as container:
        stream = _stream(container, limits)
        index = _index(container, stream, limits, clock)
        places = midpoints(len(index.times), count)
        wanted = list(dict.fromkeys(places))
        if _has_index(container):
            frames = _jump(container, stream, index, wanted, clock)
            images = [_upright(frame) for frame in frames]
        else:
            images = _read_through(file, wanted, limits, clock)
    found = dict(zip(wanted, images, strict=True))
    note = VideoReason.TRUNCATED if index.is_cut else None
    return Frames(tuple(found[place] for place in places), note=note)


def _has_index(container: InputContainer) -> bool:
    """Tell whether frames can be searched for; elsewhere what is found may be another."""
    return container.format.name.startswith(("mov,", "matroska,"))


def _open(file: BinaryIO) -> InputContainer:
    file.seek(0)
    return av.open(
        file,
        "r",
        container_options={"format_whitelist": _CONTAINERS},
        metadata_errors="replace",
        io_open=_no_other,
    )


def _lacks_index(file: BinaryIO) -> bool:
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


def _no_other(url: str, *_: object) -> NoReturn:
    raise ValueError(f"it asks for another file: {url}")


def _stream(container: InputContainer, limits: VideoLimits) -> VideoStream:
    """Choose the video's pictures, once their size is known to be bearable."""
    moving = [one for one in container.streams.video if not one.disposition & _COVER]
    if not moving:
        raise _Refused(VideoReason.EMPTY, "no pictures in it, sound at most")
    stream, codec = moving[0], moving[0].codec_context
    if codec is None:
        raise _Refused(VideoReason.UNDECODABLE, "its codec is not known")
    if codec.width * codec.height > limits.pixels:
        size = f"frames of {codec.width} x {codec.height} pixels"
        raise _Refused(VideoReason.TOO_LARGE, f"{size}; at most {limits.pixels:,} are read")
    codec.options = {"max_pixels": str(limits.pixels)}  # the size may change on the way
    codec.thread_count = 1  # another number gives the same frames, and takes more memory
    return stream


@dataclass(frozen=True, slots=True)
class _Index:
    """The times of all frames, in order, and whether some are missing.

    `keys`: of frames that need no other to be decoded, in order, each with its time of decoding,
    before which a search for it must begin.
    """

    times: Sequence[int]
    keys: Sequence[tuple[int, int]]
    is_cut: bool


def _index(
    container: InputContainer, stream: VideoStream, limits: VideoLimits, clock: "_Clock"
) -> _Index:
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
                raise _Refused(VideoReason.TOO_LARGE, f"more than {limits.frames:,} frames")
    except av.FFmpegError:  # cut off there
        if not times:
            raise
    if not times:
        raise _Refused(VideoReason.EMPTY, "no frame in it")
    times.sort()
    return _Index(times, sorted(keys), _is_cut(container, stream, times))


def _is_cut(container: InputContainer, stream: VideoStream, times: Sequence[int]) -> bool:
    """Tell whether fewer frames are there than the container says, by number or time."""
    if stream.frames > len(times):
        return True
    told_s = (container.duration or 0) / av.time_base
    if stream.time_base is None or len(times) < 2:
        return False
    step = (times[-1] - times[0]) / (len(times) - 1)
    return float((times[-1] - times[0] + step) * stream.time_base) < _WHOLE * told_s


def _jump(
    container: InputContainer,
    stream: VideoStream,
    index: _Index,
    places: Sequence[int],
    clock: "_Clock",
) -> Iterator[av.VideoFrame]:
    """Decode chosen frames, each from the key frame before it; the rest is skipped.

    For one that cannot be decoded comes the nearest before it, or else after it.
    """
    shown = coming = None  # the frame at hand, and the one after it
    frames: Iterator[av.VideoFrame] = iter(())
    for place in places:
        wanted = index.times[place]
        before = bisect_right(index.keys, wanted, key=itemgetter(0))
        key, decoded_at = index.keys[before - 1] if before else (wanted, wanted)
        if coming is None or key > _time(coming):
            container.seek(decoded_at, stream=stream)
            frames = _decode(container, stream, clock)
            coming = next(frames, None)
        while coming is not None and _time(coming) <= wanted:
            shown, coming = coming, next(frames, None)
        yield _there(shown or coming)


def _read_through(
    file: BinaryIO, places: Sequence[int], limits: VideoLimits, clock: "_Clock"
) -> list[Image.Image]:
    """Decode all frames up to the last chosen one, and count them: their times may be wrong."""
    images = []
    with _open(file) as container:  # anew: not every container can be wound back
        frames = enumerate(_decode(container, _stream(container, limits), clock))
        number, shown = -1, None
        for place in places:
            while number < place and (found := next(frames, None)) is not None:
                number, shown = found
            images.append(_upright(_there(shown)))
    return images


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
        raise _Refused(VideoReason.UNDECODABLE, "none of its frames can be decoded")
    return frame


def _time(frame: av.VideoFrame) -> int:
    return frame.pts or 0


def _upright(frame: av.VideoFrame) -> Image.Image:
    image: Image.Image = frame.to_image()
    factor = math.isqrt(image.width * image.height // KEPT_PIXELS)
    if factor > 1:
        image = image.reduce(factor)
    turned = frame.rotation % 360
    return image.rotate(turned, expand=True) if turned else image


class _Clock:
    """Says when a video has taken too long."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s, self._end = timeout_s, time.monotonic() + timeout_s

    def check(self) -> None:
        if time.monotonic() > self._end:
            raise _Refused(VideoReason.TIMEOUT, f"not read within {self._timeout_s:g} s")
