"""A small server of chat completions: it says what it sees, and fails as it is told.

A picture's caption is its size and mean colour, so that answers can be told apart. `faults` befall
the next requests, one each; `struck` says which pictures are never answered, by their width.
"""

import base64
import io
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

from models.captioners.config import EndpointCaptionerConfig
from tests.support.http_server import in_thread

Settings = Callable[..., EndpointCaptionerConfig]

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Fault:
    """What befalls a request: another answer, a cut connection, or a body that drips."""

    status: int = 200
    body: bytes = b'{"error": "by the test"}'
    headers: dict[str, str] = field(default_factory=dict)
    cut: str = ""  # "before" the head, or in the "middle" of the body
    drip_s: float = 0  # between two bytes


def saying(content: str | None, finish: str | None = "stop", **beside: Any) -> Fault:
    """An answer of another content."""
    choice = {"message": {"content": content, **beside}, "finish_reason": finish}
    return Fault(body=json.dumps({"choices": [choice]}).encode())


class ChatServer(ThreadingHTTPServer):
    """What it was asked, and what is to happen."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Begin anew: what befell one test is not the next one's."""
        self.faults: list[Fault] = []
        self.struck: Callable[[int], Fault | None] = lambda _: None
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.under_way: list[BaseHTTPRequestHandler] = []
        self.most_under_way = 0
        self.work_s = 0.0

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, *_: Any) -> None:
        """Say nothing of clients that went away."""


@contextmanager
def chatting() -> Iterator[ChatServer]:
    """Serve until the block ends."""
    with in_thread(ChatServer()) as server:
        yield server


def describe(picture: Image.Image) -> str:
    """The caption of a picture: what it is, to anyone who can see."""
    red, green, blue = np.asarray(picture.convert("RGB")).reshape(-1, 3).mean(0).round()
    return f"{picture.width} by {picture.height}, {red:g} {green:g} {blue:g}"


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.asked.append(body)
            server.headers.append(dict(self.headers))
            server.times.append(time.monotonic())
            under_way = server.under_way  # of this test, whenever the answer comes
            under_way.append(self)
            server.most_under_way = max(server.most_under_way, len(under_way))
            fault = server.faults.pop(0) if server.faults else None
        try:
            time.sleep(server.work_s)
            self._answer(body, fault)
        finally:
            with server.lock:
                under_way.remove(self)

    def _answer(self, body: dict[str, Any], fault: Fault | None) -> None:
        picture = _picture(body)
        fault = fault or self.server.struck(picture.width)
        if self.path != "/v1/chat/completions":
            fault = Fault(404)
        reply = fault or saying(describe(picture))
        if reply.cut == "before":
            return self._reset()
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if reply.cut == "middle":
            self.wfile.write(reply.body[: len(reply.body) // 2])
            return self._reset()
        step = 1 if reply.drip_s else len(reply.body)
        for start in range(0, len(reply.body), step or 1):
            time.sleep(reply.drip_s)
            self.wfile.write(reply.body[start : start + step])
        return None

    def _reset(self) -> None:
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.connection.close()
        self.close_connection = True


def _picture(body: dict[str, Any]) -> Image.Image:
    parts = body["messages"][0]["content"]
    url = next(part["image_url"]["url"] for part in parts if part["type"] == "image_url")
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
