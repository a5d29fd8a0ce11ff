"""A proxy on loopback before a real server, that loses, delays and spoils answers as it is told.

Which request is struck is for `Choose` to say: by rates and a seed (`by_rates`), or by a rule of
the test's own. What was done is counted in `FaultProxy.injected`.
"""

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: closing sends RST
_CONNECTION_ONLY = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}
_SLOW_PIECES = 10


class Fault(StrEnum):
    """What may befall a request; `done_…`: the server has done its work before."""

    UNAVAILABLE = "503"
    FAILED = "500"
    RESET = "reset"
    DONE_RESET = "done_reset"
    DONE_FAILED = "done_500"
    DENIED = "403"
    CONFLICT = "409"  # only conditional requests
    SLOW = "slow"  # the answer's body comes in pieces, over `slow_s`
    CUT = "cut"  # the answer's body ends in the middle, with a reset


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came; `conditional`: it has an If-None-Match or If-Match."""

    number: int  # from 1, in the order in which they came
    method: str
    path: str
    conditional: bool


Choose = Callable[[Request], Fault | None]


def by_rates(rates: Mapping[Fault, float], seed: int = 0, conditional_only: bool = False) -> Choose:
    """Strike each request by chance: `rates` are shares of all requests, at most 1 in sum."""
    dice, lock = random.Random(seed), threading.Lock()
    faults, weights = list(rates), list(rates.values())
    assert sum(weights) <= 1, "more faults than requests"

    def choose(request: Request) -> Fault | None:
        with lock:
            fault = dice.choices([*faults, None], [*weights, 1 - sum(weights)])[0]
        if not request.conditional and (conditional_only or fault == Fault.CONFLICT):
            return None
        return fault

    return choose


@dataclass
class FaultProxy:
    """A running proxy: its URL, and what it has done so far."""

    upstream: str
    choose: Choose
    slow_s: float = 0.5
    endpoint: str = ""
    injected: Counter[Fault] = field(default_factory=Counter)
    struck: list[tuple[Request, Fault]] = field(default_factory=list)
    requests: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def strike(self, method: str, path: str, conditional: bool) -> Fault | None:
        """Say what befalls a request, and count it."""
        with self._lock:
            self.requests += 1
            request = Request(self.requests, method, path, conditional)
        fault = self.choose(request)
        if fault is not None:
            with self._lock:
                self.injected[fault] += 1
                self.struck.append((request, fault))
        return fault


@contextmanager
def fault_proxy(upstream: str, choose: Choose, slow_s: float = 0.5) -> Iterator[FaultProxy]:
    """Serve what `upstream` (http://host:port) serves, with faults, on a free port of loopback."""
    proxy = FaultProxy(upstream, choose, slow_s)
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    with _Server(("127.0.0.1", 0), handler) as server:
        proxy.endpoint = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield proxy
        finally:
            server.shutdown()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """Say nothing of clients that went away: they are killed on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultProxy

    def answer(self) -> None:
        body = self._body()
        conditional = "If-None-Match" in self.headers or "If-Match" in self.headers
        fault = self.proxy.strike(self.command, self.path, conditional)
        if fault == Fault.RESET:
            self._reset()
        elif fault in (Fault.UNAVAILABLE, Fault.FAILED, Fault.DENIED, Fault.CONFLICT):
            self._refuse(fault)
        else:
            self._forward(body, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

    def _forward(self, body: bytes, fault: Fault | None) -> None:
        address = urlsplit(self.proxy.upstream)
        assert address.hostname is not None
        server = HTTPConnection(address.hostname, address.port, timeout=60)
        try:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _CONNECTION_ONLY}
            headers["Content-Length"] = str(len(body))
            server.request(self.command, self.path, body, headers)
            response = server.getresponse()
            data = response.read()
        finally:
            server.close()
        if fault == Fault.DONE_RESET:
            self._reset()
        elif fault == Fault.DONE_FAILED:
            self._refuse(Fault.FAILED)
        else:
            self._pass_on(response, data, fault)

    def _pass_on(self, response: HTTPResponse, data: bytes, fault: Fault | None) -> None:
        self.send_response_only(response.status, response.reason)
        for name, value in response.getheaders():
            if name.lower() not in _CONNECTION_ONLY:
                self.send_header(name, value)
        length = response.getheader("Content-Length") if self.command == "HEAD" else len(data)
        self.send_header("Content-Length", str(length or 0))
        self.end_headers()
        if fault == Fault.SLOW:
            self._dribble(data)
        elif fault == Fault.CUT:
            self.wfile.write(data[: len(data) // 2])
            self._reset()
        else:
            self.wfile.write(data)

    def _dribble(self, data: bytes) -> None:
        piece = len(data) // _SLOW_PIECES + 1
        for start in range(0, _SLOW_PIECES * piece, piece):
            time.sleep(self.proxy.slow_s / _SLOW_PIECES)
            self.wfile.write(data[start : start + piece])

    def _refuse(self, fault: Fault) -> None:
        code = {
            Fault.UNAVAILABLE: "SlowDown",
            Fault.FAILED: "InternalError",
            Fault.DENIED: "AccessDenied",
            Fault.CONFLICT: "ConditionalRequestConflict",
        }[fault]
        body = f"<Error><Code>{code}</Code><Message>by the proxy</Message></Error>".encode()
        self.send_response(int(fault))
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.connection.close()
        self.close_connection = True

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return b"".join(chunks)

    def log_message(self, *_: Any) -> None:
        """Keep the test's output clean."""
