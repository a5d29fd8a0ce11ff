"""One address is fetched within bounds: every odd answer ends in its reason, in bounded time."""

import json
import time
from collections.abc import Callable
from email.message import Message
from urllib.request import Request

import pytest

from pipeline.download.fetcher.opener import BoundedOpener, Bounds, Failure, opts_out
from tests.support.odd_server import HTML, Server, picture

Url = Callable[[str], str]
BOUNDS = Bounds(timeout_s=1.5, deadline_s=2.0, most_bytes=1 << 20, agent="capfilt of tests")


def fetch(url: str) -> bytes:
    return BoundedOpener(BOUNDS).open(Request(url)).read()  # noqa: S310 - what is tested


def reason(url: str) -> tuple[str, bool]:
    with pytest.raises(Failure) as error:
        fetch(url)
    told = json.loads(str(error.value))
    return told["reason"], told["answered"]


@pytest.mark.parametrize("path", ["pictures/a", "odd/redirect/a", "odd/gzip/a", "odd/harmless/a"])
def test_a_picture_comes_as_it_was_served(url: Url, path: str) -> None:
    assert fetch(url(path)) == picture("a")


def test_what_is_no_picture_comes_too(url: Url) -> None:
    assert fetch(url("odd/html/a")) == HTML
    assert fetch(url("odd/empty/a")) == b""
    assert fetch(url("odd/shorter/a")) == picture("a")[:100]


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("404", "http_error"),
        ("503", "http_error"),
        ("429-once", "http_error"),
        ("redirect-loop", "http_error"),
        ("redirect-file", "http_error"),
        ("endless", "too_large"),
        ("ten-gigabytes", "too_large"),
        ("gzip-bomb", "too_large"),
        ("drip", "timeout"),
        ("longer", "truncated_body"),
        *((name, "opted_out") for name in ("noai", "upper", "none", "colon", "date")),
        *((name, "opted_out") for name in ("other-agent", "second-line", "redirect-noai")),
    ],
)
def test_an_odd_answer_ends_in_its_reason(url: Url, what: str, expected: str) -> None:
    begun = time.monotonic()
    assert reason(url(f"odd/{what}/a")) == (expected, True)
    assert time.monotonic() - begun < 10 * BOUNDS.deadline_s  # a busy machine is slow


@pytest.mark.parametrize(
    ("what", "expected"),
    [("reset", "connection_error"), ("drip-header", "timeout"), ("no-http", "http_error")],
)
def test_who_never_answers_is_told_from_who_does(url: Url, what: str, expected: str) -> None:
    assert reason(url(f"odd/{what}/a")) == (expected, False)


def test_a_closed_port_is_a_connection_error() -> None:
    assert reason("http://127.0.0.1:9/x.jpg") == ("connection_error", False)


def test_who_asks_is_said_honestly_and_proxies_are_not_asked(
    server: Server, url: Url, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert fetch(url("pictures/a")) == picture("a")
    assert server.agents == {"capfilt of tests"}


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:text/plain,x"])
def test_no_other_scheme_is_opened(url: str) -> None:
    assert reason(url) == ("bad_url", False)


def test_an_opt_out_is_found_anywhere() -> None:
    header = Message()
    assert not opts_out(header)
    header["X-Robots-Tag"] = "all, noarchive"
    assert not opts_out(header)
    header["x-robots-tag"] = "bot: NOINDEX"
    assert opts_out(header)
