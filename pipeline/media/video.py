"""Frames of a video, at the mid-points of equal spans (BLIP §5.6): few are ever held at once.

Spans are of frames, as in the original, not of seconds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import av
from PIL import Image

from pipeline.media.video_container import (
    VideoLimits,
    VideoReason,
    VideoRefused,
    lacks_index,
    open_video,
)
from shards.store import filesystem

FRAMES_FOR_RETRIEVAL, FRAMES_FOR_QUESTIONS = 8, 16  # BLIP §5.6

# A larger frame is reduced by a whole number, to no less than this: no model reads more than a
# quarter of it, and so the resize that follows has enough to average.
KEPT_PIXELS = 1_000_000


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


def midpoints(frames: int, count: int) -> list[int]:
    """Choose `count` of a video's frames: the middle of as many equal spans.

    Frames repeat where there are fewer than `count`. ValueError if there is none at all.
    """
    if frames < 1 or count < 1:
        raise ValueError(f"cannot take {count} frames from {frames}; both must be at least 1")
    return [(2 * span + 1) * frames // (2 * count) for span in range(count)]


Decode = Callable[[BinaryIO, int, VideoLimits], Frames]


def decode_frames(file: BinaryIO, count: int, limits: VideoLimits) -> Frames:
    """Decode frames of an open file; whatever FFmpeg makes of hostile bytes becomes a reason.

    Raises what reading the file raises, and MemoryError: the size was within the limits.
    """
    try:
        return _choose(file, count, limits)
    except av.FFmpegError as error:
        refused = VideoRefused(VideoReason.UNDECODABLE, error.strerror or str(error))
    except VideoRefused as error:
        refused = error
    except (OSError, MemoryError):
        raise
    except Exception as error:  # no list of what a codec may raise on hostile bytes is complete
        detail = f"{type(error).__name__}: {error}"[:200]
        refused = VideoRefused(VideoReason.UNDECODABLE, detail)
    if refused.reason in (VideoReason.EMPTY, VideoReason.UNDECODABLE) and lacks_index(file):
        detail = "an MP4 that ends before its index, which tells where frames are"
        refused = VideoRefused(VideoReason.TRUNCATED, detail)
    return Frames(reason=refused.reason, detail=refused.detail)


def read_frames(
    url: str, count: int, limits: VideoLimits | None = None, decode: Decode = decode_frames
) -> Frames:
    """Read frames of a file, local or of any fsspec store; a bad video is a reason, never raises.

    A lost connection does raise. `decode` in this process, or under guard (`VideoGuard.decode`).
    """
    chosen = limits or VideoLimits()
    fs, path = filesystem(url)
    try:
        size = fs.size(path)
        if size > chosen.size_bytes:
            detail = f"{size:,} bytes; at most {chosen.size_bytes:,} are read"
            return Frames(reason=VideoReason.TOO_LARGE, detail=detail)
        if not size:
            return Frames(reason=VideoReason.EMPTY, detail="0 bytes")
        with fs.open(path, "rb") as file:
            return decode(file, count, chosen)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return Frames(reason=VideoReason.MISSING, detail="no such file")


def _choose(file: BinaryIO, count: int, limits: VideoLimits) -> Frames:
    with open_video(file, limits) as video:
        chosen = midpoints(len(video.index.times), count)
        wanted = list(dict.fromkeys(chosen))
        images = [_upright(frame) for frame in video.frames(wanted)]
    image_of = dict(zip(wanted, images, strict=True))
    note = VideoReason.TRUNCATED if video.index.is_cut else None
    return Frames(tuple(image_of[number] for number in chosen), note=note)


def _upright(frame: av.VideoFrame) -> Image.Image:
    image: Image.Image = frame.to_image()
    factor = math.isqrt(image.width * image.height // KEPT_PIXELS)
    if factor > 1:
        image = image.reduce(factor)
    turned = frame.rotation % 360
    return image.rotate(turned, expand=True) if turned else image
