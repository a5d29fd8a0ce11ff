"""A web server of pictures and of odd answers, as a process of its own: `python odd_server.py`.

`/pictures/NAME` is the picture of that name, the same bytes at any time; `/odd/WHAT/NAME` answers
as `ODD` has it. Its port is the line that it prints; each request is a line in the log that is
named as its argument. It listens on loopback, and in a network of its own on another `host=`. With
`down-after=N` it resets all connections after so many, with `pause-s=S` it takes its time for each
picture.
"""

import gzip
import hashlib
import io
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import unquote

from PIL import Image

HTML = b"<!doctype html><title>Sorry</title><p>This page has moved."
MOST_SECONDS = 60.0


def picture(name: str) -> bytes:
    """Draw the picture of a name; its colour follows from it."""
    red, green, blue = hashlib.sha256(name.encode()).digest()[:3]
    image = Image.new("RGB", (48, 40), (red, green, blue))
    image.paste((blue, red, green), (4, 4, 30, 20))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    server: "Server"

    def do_GET(self) -> None:
        self.server.note(self.path, self.headers.get("User-Agent", ""))
        kind, _, rest = self.path.strip("/").partition("/")
        if kind == "pictures":
            time.sleep(self.server.pause_s)
            return self.answer(picture(rest))
        what, _, name = rest.partition("/")
        return ODD[what](self, name)

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "image/jpeg", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def pour(self, chunk: bytes, pause_s: float, **headers: str) -> None:
        """Send the same again and again, until the client goes away."""
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        started = time.monotonic()
        while time.monotonic() - started < MOST_SECONDS:
            self.wfile.write(chunk)
            time.sleep(pause_s)

    def drip_header(self) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\n")
        for number in range(int(MOST_SECONDS / 0.2)):
            self.wfile.write(b"X-%d: 1\r\n" % number)
            time.sleep(0.2)

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:  # the client went away
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 256

    def __init__(
        self,
        log: Path | None = None,
        down_after: int = 0,
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        super().__init__(address, Handler)
        self.seen, self._lock, self._log = Counter[str](), Lock(), log
        self.agents: set[str] = set()
        self.down_after, self.connections, self.pause_s = down_after, 0, 0.0

    def note(self, path: str, agent: str) -> int:
        with self._lock:
            self.seen[path] += 1
            self.agents.add(agent)
            if self._log is not None:
                with self._log.open("a") as file:
                    file.write(path + "\n")
            return self.seen[path]

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        if self.down_after and self.connections > self.down_after:
            reset(request)
            return
        super().process_request(request, client_address)


def reset(connection: socket.socket) -> None:
    """Close with RST in place of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _later(status: int) -> Callable[[Handler, str], None]:
    def act(self: Handler, name: str) -> None:
        if self.server.seen[self.path] > 1:
            return self.answer(picture(name))
        return self.answer(b"later", status, Retry_After="1")

    return act


def _tagged(*tags: str) -> Callable[[Handler, str], None]:
    def act(self: Handler, name: str) -> None:
        self.send_response(200)
        for tag in tags:
            self.send_header("X-Robots-Tag", tag)
        self.end_headers()
        self.wfile.write(picture(name))

    return act


def _to(where: str, **headers: str) -> Callable[[Handler, str], None]:
    def act(self: Handler, name: str) -> None:
        here = f"http://{self.headers['Host']}"
        location = where.format(here=here, name=name, path=self.path)
        self.answer(b"", 302, Location=location, **headers)

    return act


def _another_later(self: Handler, name: str) -> None:
    self.answer(picture(f"{name}, changed" if self.server.seen[self.path] > 1 else name))


ODD: dict[str, Callable[[Handler, str], None]] = {
    "404": lambda self, _: self.answer(HTML, 404),
    "503": lambda self, _: self.answer(HTML, 503),
    "429-once": _later(429),
    "another-later": _another_later,
    "redirect": _to("{here}/pictures/{name}"),
    "redirect-loop": _to("{here}{path}"),
    "redirect-private": _to("http://127.0.0.2:9/pictures/{name}"),
    "redirect-to": lambda self, name: self.answer(b"", 302, Location=unquote(name)),
    "redirect-file": _to("file:///etc/hostname"),
    "redirect-noai": _to("{here}/pictures/{name}", X_Robots_Tag="noai"),
    "endless": lambda self, _: self.pour(bytes(1 << 16), 0.001),
    "ten-gigabytes": lambda self, _: self.pour(bytes(1 << 16), 0.001, Content_Length=str(10 << 30)),
    "drip": lambda self, _: self.pour(b"\xff", 0.2),
    "drip-header": lambda self, _: self.drip_header(),
    "longer": lambda self, name: self.answer(picture(name), Content_Length="100000"),
    "shorter": lambda self, name: self.answer(picture(name), Content_Length="100"),
    "gzip": lambda self, name: self.answer(gzip.compress(picture(name)), Content_Encoding="gzip"),
    "gzip-bomb": lambda self, _: self.answer(
        gzip.compress(bytes(64 << 20)), Content_Encoding="gzip"
    ),
    "html": lambda self, _: self.answer(HTML),
    "empty": lambda self, _: self.answer(b""),
    "reset": lambda self, _: reset(self.connection),
    "no-http": lambda self, _: self.wfile.writelines([b"SSH-2.0-OpenSSH_9.2\r\n"]),
    "noai": _tagged("noai"),
    "upper": _tagged("NoImageAI"),
    "none": _tagged("none"),
    "colon": _tagged("max-image-preview: large, noai"),
    "date": _tagged("unavailable_after: 25 Jun 2030 15:00:00 PST, noimageindex"),
    "other-agent": _tagged("otherbot: noindex"),
    "second-line": _tagged("noarchive", "noindex"),
    "harmless": _tagged("noarchive, nosnippet, max-snippet: 20"),
}


if __name__ == "__main__":
    chosen = dict(argument.split("=", 1) for argument in sys.argv[1:])
    server = Server(
        Path(chosen["log"]) if "log" in chosen else None,
        int(chosen.get("down-after", 0)),
        (chosen.get("host", "127.0.0.1"), int(chosen.get("port", 0))),
    )
    server.pause_s = float(chosen.get("pause-s", 0))
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
