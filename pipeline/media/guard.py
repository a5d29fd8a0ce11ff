"""Decode under guard: in a child process, whose crash, hang or greed costs one picture.

Run as a program this file is that child.
"""

import json
import sys
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

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
from pipeline.media.decode import Decoded, DecodeLimits, DecodeRefusal, decode
from shards.reasons import SampleReason

TIMEOUT_S = 60.0
TRIES = 2  # a child may be killed for what is not the picture's fault

# What one pixel may take while its picture is turned into RGB, and all the rest.
BYTES_PER_PIXEL = 16
MEMORY_BYTES = 1 << 30


class Guard(Watchdog):
    """Decodes in a child process, one picture at a time; a context manager."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__("pipeline.media.guard", str(timeout_s))
        self._timeout_s = timeout_s

    def decode(self, data: bytes, limits: DecodeLimits) -> Decoded | DecodeRefusal:
        """Decode one image as `pipeline.media.decode.decode` does, or say how it ended the child.

        Raises GuardError.
        """
        for _ in range(TRIES):
            child = self.child()
            try:
                with child.within(self._timeout_s):
                    return _decode(child, data, limits)
            except ChildHung:
                what = f"no picture within {self._timeout_s:g} s"
                refusal = DecodeRefusal(SampleReason.DECODE_TIMEOUT, what)
            except MemoryError:
                megabytes = memory_limit(limits) >> 20
                refusal = DecodeRefusal(
                    SampleReason.DECODER_CRASH, f"needs more than {megabytes} MiB"
                )
            except ChildDied:
                refusal = DecodeRefusal(SampleReason.DECODER_CRASH, f"the decoder {child.death()}")
            self.end()
        return refusal


def _decode(child: Child, data: bytes, limits: DecodeLimits) -> Decoded | DecodeRefusal:
    """Let the child decode; raises ChildDied, and MemoryError."""
    child.send(json.dumps(asdict(limits)).encode())
    child.send(data)
    try:
        answer = json.loads(child.receive())
        if not answer:
            raise MemoryError
        if "reason" in answer:
            return DecodeRefusal(SampleReason(answer["reason"]), str(answer["detail"]))
        return _picture(answer, child.receive(3 * limits.max_pixels))
    except (ValueError, TypeError, KeyError) as error:
        raise ChildDied from error


def _picture(answer: dict[str, Any], pixels: bytes) -> Decoded:
    width, height = int(answer["width"]), int(answer["height"])
    if len(pixels) != 3 * width * height:
        raise ValueError(f"{len(pixels)} bytes are no picture of {width} x {height}")
    image = Image.frombytes("RGB", (width, height), pixels)
    notes, (whole_width, whole_height) = tuple(map(str, answer["notes"])), answer["size"]
    return Decoded(image, str(answer["format"]), notes, (int(whole_width), int(whole_height)))


def memory_limit(limits: DecodeLimits) -> int:
    """Compute the bytes that decoding one picture may take."""
    return MEMORY_BYTES + BYTES_PER_PIXEL * limits.max_pixels


def _serve(pipe: Connection, timeout_s: float) -> None:
    """Decode what comes until the parent hangs up."""
    own_bytes = start_child_loop(pipe)
    while True:
        limits = DecodeLimits(**json.loads(pipe.recv_bytes(MESSAGE_BYTES)))
        data = pipe.recv_bytes()
        try:
            with bounded(own_bytes + len(data) + memory_limit(limits), 2 * timeout_s):
                decoded = decode(data, limits)
        except MemoryError:
            pipe.send_bytes(b"{}")
            return
        pipe.send_bytes(json.dumps(_message(decoded)).encode())
        if isinstance(decoded, Decoded):
            pipe.send_bytes(decoded.image.tobytes())


def _message(decoded: Decoded | DecodeRefusal) -> dict[str, Any]:
    if isinstance(decoded, DecodeRefusal):
        return {"reason": decoded.reason, "detail": decoded.detail}
    width, height = decoded.image.size
    facts = {"format": decoded.format, "notes": decoded.notes, "size": decoded.size}
    return {"width": width, "height": height, **facts}


if __name__ == "__main__":
    try:
        _serve(Connection(int(sys.argv[1])), float(sys.argv[2]))
    except (EOFError, OSError):
        sys.exit(0)  # the parent hung up
