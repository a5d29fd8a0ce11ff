"""Decode videos under guard: in a child process, whose crash, hang or greed costs one video.

Run as a program this file is that child. It opens no file of its own: it asks its parent for the
bytes that it wants, so that every store works, and its keys stay with the parent.
"""

import io
import json
import os
import sys
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from PIL import Image

from pipeline.media.child import (
    MESSAGE_BYTES,
    Child,
    ChildDied,
    ChildHung,
    Watchdog,
    bounded,
    start_child_loop,
)
from pipeline.media.video import KEPT_PIXELS, Frames, decode_frames
from pipeline.media.video_container import VideoLimits, VideoReason

if TYPE_CHECKING:
    from typing_extensions import Buffer

TRIES = 2  # a child may be killed for what is not the video's fault
GRACE_S = 10.0  # after the video's own time: a child that still works says so itself
READ_BYTES = 128 * 1024  # of the file, at a time
_MOST_PIXELS = 4 * KEPT_PIXELS  # of a frame that is kept


class VideoGuard(Watchdog):
    """Decodes in a child process, one video at a time; a context manager."""

    def __init__(self) -> None:
        super().__init__("pipeline.media.video_guard")

    def decode(self, file: BinaryIO, count: int, limits: VideoLimits) -> Frames:
        """Decode frames as `decode_frames` does, or say how it ended the child.

        Raises what reading the file raises, and GuardError.
        """
        for _ in range(TRIES):
            child = self.child()
            try:
                with child.within(limits.timeout_s + GRACE_S):
                    return _decode(child, file, count, limits)
            except ChildHung:
                self.end()
                detail = f"the decoder hangs: nothing within {limits.timeout_s:g} s"
                return Frames(reason=VideoReason.TIMEOUT, detail=detail)
            except ChildDied:
                detail = f"the decoder {child.death()}"
                self.end()
            except BaseException:  # the file's error, or an interrupt: the child waits for bytes
                self.end()
                raise
        return Frames(reason=VideoReason.DECODER_CRASH, detail=detail)


def _decode(child: Child, file: BinaryIO, count: int, limits: VideoLimits) -> Frames:
    """Let the child decode, and read the file for it; raises ChildDied.

    The two take turns: a message of the child is the start of the bytes it wants, until one tells
    of frames. So neither can wait for the other for ever, and the child cannot read elsewhere.
    """
    size_bytes = file.seek(0, os.SEEK_END)
    task = {"size_bytes": size_bytes, "count": count, "limits": asdict(limits)}
    child.send(json.dumps(task).encode())
    while True:
        answer = _understand(child.receive())
        if "start" not in answer:
            return _frames(child, count, answer)
        start = answer["start"]
        if not isinstance(start, int) or not 0 <= start <= size_bytes:
            raise ChildDied
        file.seek(start)
        child.send(file.read(READ_BYTES))


def _frames(child: Child, count: int, answer: dict[str, Any]) -> Frames:
    """Take what was found: the picture of each frame comes once, however often it is shown."""
    try:
        if "reason" in answer:
            return Frames(reason=VideoReason(answer["reason"]), detail=str(answer["detail"]))
        order, note = [int(number) for number in answer["order"]], answer["note"]
        sizes = [(int(width), int(height)) for width, height in answer["sizes"]]
        if len(order) != count or len(sizes) > count:
            raise ChildDied
        images = []
        for width, height in sizes:
            pixels = child.receive(3 * _MOST_PIXELS)
            images.append(Image.frombytes("RGB", (width, height), pixels))
        shown = tuple(images[number] for number in order)
        return Frames(shown, note=VideoReason(note) if note else None)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ChildDied from error


def _understand(message: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(message))
    except (ValueError, TypeError) as error:
        raise ChildDied from error


class _Asked(io.RawIOBase):
    """The file, as the child sees it."""

    def __init__(self, pipe: Connection, size_bytes: int) -> None:
        self._pipe, self._size_bytes, self._at = pipe, size_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size_bytes}[whence]
        if origin + offset < 0:
            raise ValueError(f"there is no place {origin + offset} in a file")
        self._at = origin + offset
        return self._at

    def readinto(self, buffer: "Buffer", /) -> int:
        if self._at >= self._size_bytes:
            return 0
        self._pipe.send_bytes(json.dumps({"start": self._at}).encode())
        room = memoryview(buffer)
        data = self._pipe.recv_bytes(READ_BYTES)[: len(room)]
        room[: len(data)] = data
        self._at += len(data)
        return len(data)


def _serve(pipe: Connection) -> None:
    """Decode what comes until the parent hangs up."""
    own_bytes = start_child_loop(pipe)
    while True:
        task = json.loads(pipe.recv_bytes(MESSAGE_BYTES))
        limits = VideoLimits(**task["limits"])
        asked = io.BufferedReader(_Asked(pipe, task["size_bytes"]), READ_BYTES)
        try:
            with bounded(own_bytes + limits.memory_bytes, 2 * limits.timeout_s + 2 * GRACE_S):
                frames = decode_frames(cast("BinaryIO", asked), task["count"], limits)
        except MemoryError:
            detail = f"needs more than {limits.memory_bytes >> 20:,} MiB"
            frames = Frames(reason=VideoReason.TOO_LARGE, detail=detail)
        _tell(pipe, frames)


def _tell(pipe: Connection, frames: Frames) -> None:
    if frames.reason is not None:
        pipe.send_bytes(json.dumps({"reason": frames.reason, "detail": frames.detail}).encode())
        return
    images = {id(image): image for image in frames.images}
    numbers = {key: number for number, key in enumerate(images)}
    answer = {
        "sizes": [image.size for image in images.values()],
        "order": [numbers[id(image)] for image in frames.images],
        "note": frames.note,
    }
    pipe.send_bytes(json.dumps(answer).encode())
    for image in images.values():
        pipe.send_bytes(image.tobytes())


if __name__ == "__main__":
    try:
        _serve(Connection(int(sys.argv[1])))
    except (EOFError, OSError):
        sys.exit(0)  # the parent hung up
