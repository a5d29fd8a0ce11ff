"""Fetches one address within bounds: what urllib's `urlopen` does here, and so img2dataset's.

Only http and https, few redirects, an honest agent, no proxy of the environment (it would look up
names behind our back); at most so many bytes and seconds for all of an answer; and no picture
whose owner says no. Every failure is a `Failure` with a stable reason.
"""

import http.client
import io
import json
import re
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.response import addinfourl

from pipeline.download.address import BadAddress, mend
from pipeline.download.fetcher.guard import BlockedAddress

OPT_OUTS = {"noai", "noimageai", "noindex", "noimageindex", "none"}
_MOST_REDIRECTS = 5
_MOST_OF_DETAIL = 200  # characters; a server may have put them there
_WORDS = re.compile(r"[a-z]+")
_now = threading.local()  # the deadline of this thread's fetch, and whether anyone has answered


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one address may take: seconds of silence and in all, bytes; and who asks."""

    timeout_s: float
    deadline_s: float
    most_bytes: int
    agent: str


class Failure(Exception):  # noqa: N818 - reads as what happened
    """Why an address gave no picture; `answered` says that some server was there.

    As a text it is JSON, and so img2dataset hands it on.
    """

    def __init__(self, reason: str, detail: str, answered: bool, begun: float) -> None:
        self.reason = reason
        said = {"reason": reason, "detail": detail[:_MOST_OF_DETAIL]}
        super().__init__(json.dumps(said | {"answered": answered, "begun": begun}))


class TooLarge(OSError):  # noqa: N818 - reads as what happened
    """An answer of more bytes than are taken."""


class OptedOut(OSError):  # noqa: N818 - reads as what happened
    """A picture whose owner does not want it used."""


class BoundedOpener:
    """Fetches the whole of an answer, or raises Failure; to be installed as urllib's opener."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._director = urllib.request.OpenerDirector()
        self._director.addheaders = []
        for handler in (
            _Http(bounds),
            _Https(bounds),
            _Redirects(),
            _OptOuts(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.UnknownHandler(),
        ):
            self._director.add_handler(handler)

    def open(self, asked: urllib.request.Request, *_: object) -> addinfourl:
        """Fetch an address; whatever else is asked for gives way to our bounds."""
        url = asked.full_url
        begun = time.monotonic()
        _now.deadline, _now.answered = begun + self._bounds.deadline_s, False
        request = urllib.request.Request(url, headers={"User-Agent": self._bounds.agent})  # noqa: S310 - no other scheme has a handler
        try:
            with self._director.open(request, None, self._bounds.timeout_s) as answer:
                body = _body(answer, self._bounds.most_bytes)
            return addinfourl(io.BytesIO(body), answer.headers, url, answer.status)
        except (OSError, EOFError, ValueError, http.client.HTTPException, zlib.error) as error:
            reason, detail = _reason_of(error)
            raise Failure(reason, detail, _now.answered, begun) from error


def _reason_of(error: BaseException) -> tuple[str, str]:
    """Name the reason for what urllib and its sockets raise; what is no address is a ValueError."""
    if isinstance(error, urllib.error.HTTPError):
        return "http_error", f"{error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        inner = error.reason
        return _reason_of(inner) if isinstance(inner, BaseException) else ("bad_url", inner)
    kinds: list[tuple[type[BaseException] | tuple[type[BaseException], ...], str]] = [
        (BlockedAddress, "blocked_address"),
        (OptedOut, "opted_out"),
        (TooLarge, "too_large"),
        (http.client.IncompleteRead, "truncated_body"),
        ((zlib.error, EOFError), "truncated_body"),
        (TimeoutError, "timeout"),
        ((http.client.InvalidURL, BadAddress, UnicodeError), "bad_url"),
        (http.client.RemoteDisconnected, "connection_error"),
        (http.client.HTTPException, "http_error"),
        (OSError, "connection_error"),
    ]
    said = str(error) or type(error).__name__
    return next((name for kind, name in kinds if isinstance(error, kind)), "bad_url"), said


def opts_out(headers: Message) -> bool:
    """Look for an opt-out anywhere in X-Robots-Tag: behind colons, dates, and agents' names."""
    said = " ".join(headers.get_all("X-Robots-Tag", []))
    return not OPT_OUTS.isdisjoint(_WORDS.findall(said.lower()))


def _body(answer: http.client.HTTPResponse, most_bytes: int) -> bytes:
    length = answer.length
    if length is not None and length > most_bytes:
        raise TooLarge(f"{length:,} bytes are promised, more than {most_bytes:,}")
    body = answer.read()
    encoding = str(answer.headers.get("Content-Encoding", "")).strip().lower()
    if encoding in ("gzip", "x-gzip", "deflate"):  # though nobody asked for it
        unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        body = unpacker.decompress(body, most_bytes)
        if unpacker.unconsumed_tail:
            raise TooLarge(f"more than {most_bytes:,} bytes, unpacked")
        if not unpacker.eof:
            raise EOFError("the packed body ends too early")
    return body


class _BoundedFile(io.RawIOBase):
    """What a socket sends, up to so many bytes, until the deadline of this thread's fetch."""

    def __init__(self, raw: Any, sock: Any, bounds: Bounds) -> None:  # noqa: ANN401 - also of ssl
        self._raw, self._sock, self._bounds, self._read = raw, sock, bounds, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any buffer
        self._sock.settimeout(min(self._bounds.timeout_s, seconds_left()))
        count = int(self._raw.readinto(buffer) or 0)
        self._read += count
        if self._read > self._bounds.most_bytes + (1 << 16):  # and the header
            raise TooLarge(f"more than {self._bounds.most_bytes:,} bytes")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def seconds_left() -> float:
    """Return the seconds that this thread's fetch has left; TimeoutError where there are none."""
    left = float(_now.deadline - time.monotonic())
    if left <= 0:
        raise TimeoutError("it took too long in all")
    return left


def _response_class(bounds: Bounds) -> type[http.client.HTTPResponse]:
    class BoundedResponse(http.client.HTTPResponse):
        def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as http.client has it
            super().__init__(sock, *args, **kwargs)
            raw = self.fp.detach()
            self.fp = io.BufferedReader(_BoundedFile(raw, sock, bounds), 1 << 16)

    return BoundedResponse


class _Http(urllib.request.HTTPHandler):
    def __init__(self, bounds: Bounds) -> None:
        super().__init__()
        self._bounds = bounds

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_connection(http.client.HTTPConnection, self._bounds), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, bounds: Bounds) -> None:
        super().__init__()
        self._bounds = bounds

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_connection(http.client.HTTPSConnection, self._bounds), req)


def _connection(
    kind: type[http.client.HTTPConnection], bounds: Bounds
) -> Callable[..., http.client.HTTPConnection]:
    def connect(
        host: str,
        timeout: float = bounds.timeout_s,
        **others: Any,  # noqa: ANN401 - as urllib has it
    ) -> http.client.HTTPConnection:
        made = kind(host, timeout=min(timeout, seconds_left()), **others)
        made.response_class = _response_class(bounds)
        return made

    return connect


class _OptOuts(urllib.request.BaseHandler):
    """Refuses an answer, a redirect too, by its header; before anything else is made of it."""

    handler_order = 100

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:  # noqa: ANN401, ARG002 - as urllib has it
        _now.answered = True
        if opts_out(response.headers):
            raise OptedOut("X-Robots-Tag: " + ", ".join(response.headers.get_all("X-Robots-Tag")))
        return response

    https_response = http_response


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = _MOST_REDIRECTS

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: Any,  # noqa: ANN401 - as urllib has it
        code: int,
        msg: str,
        headers: Any,  # noqa: ANN401 - as urllib has it
        newurl: str,
    ) -> urllib.request.Request | None:
        return super().redirect_request(req, fp, code, msg, headers, mend(newurl))
