"""One of several writers gets a free name in a remote store, whatever the store answers."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from shards.files import claim
from shards.store import Store, creates_once
from tests.support.object_store import BUCKET, s3_at


class LooksThenWrites(MemoryFileSystem):
    """A store with nothing but fsspec's own "create", like SFTP: two at once may both write."""

    protocol = "looksthenwrites"
    pipe_file = fsspec.AbstractFileSystem.pipe_file


class IgnoresCreate(MemoryFileSystem):
    """A store that takes the option and does not heed it."""

    protocol = "ignorescreate"

    def pipe_file(self, path: str, value: bytes, **_: object) -> None:
        super().pipe_file(path, value, mode="overwrite")


class KnowsNoCreate(MemoryFileSystem):
    """A store of an older fsspec, without the option."""

    protocol = "knowsnocreate"

    def pipe_file(self, path: str, value: bytes) -> None:
        super().pipe_file(path, value, mode="overwrite")


@pytest.mark.parametrize("kind", [LooksThenWrites, IgnoresCreate, KnowsNoCreate])
def test_the_probe_finds_out_stores_that_do_not(kind: type[MemoryFileSystem]) -> None:
    fsspec.register_implementation(kind.protocol, kind, clobber=True)
    store = Store(f"{kind.protocol}://{kind.__name__}")
    assert not creates_once(store)
    assert store.survey() == ()
    assert store.create("a", b"1")
    assert not store.create("a", b"2"), "one that comes later does see the first"
    assert store.read("a") == b"1"


class Scripted(BaseHTTPRequestHandler):
    """An S3 server whose answers to conditional writes are told beforehand; then it overwrites."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    answers: list[tuple[int, str]]

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("If-None-Match") == "*" and self.answers:
            status, code = self.answers.pop(0)
            self.answer(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())
            return
        self.objects[self.path] = body
        self.answer(200, b"")

    def do_GET(self) -> None:
        if self.path in self.objects:
            self.answer(200, self.objects[self.path])
        elif "?" in self.path:
            self.answer(200, b"<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>")
        else:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    do_HEAD = do_GET  # noqa: N815

    def do_DELETE(self) -> None:
        self.objects.pop(self.path, None)
        self.answer(204, b"")

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        return


@contextmanager
def scripted(*answers: tuple[int, str]) -> Iterator[type[Scripted]]:
    class Server(Scripted):
        objects: dict[str, bytes] = {}  # noqa: RUF012

    Server.answers = list(answers)
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with s3_at(f"http://127.0.0.1:{server.server_port}"):
            yield Server
        server.shutdown()


CONFLICT, TAKEN = (409, "ConditionalRequestConflict"), (412, "PreconditionFailed")


def test_a_conflict_is_tried_again_until_it_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    monkeypatch.setattr(claim, "_CONFLICT_PAUSES_S", (0.01, 0.01))
    with scripted(CONFLICT, CONFLICT) as server:
        assert Store(f"s3://{BUCKET}/run").create("a", b"ours")
        assert server.objects == {f"/{BUCKET}/run/a": b"ours"}
    with scripted(CONFLICT, TAKEN) as server:  # which lies: nothing stands there
        assert Store(f"s3://{BUCKET}/run").create("a", b"ours")
        assert server.objects == {f"/{BUCKET}/run/a": b"ours"}
    with scripted(*[CONFLICT] * 20), pytest.raises(OSError, match="no"):
        Store(f"s3://{BUCKET}/run").create("a", b"ours")


def test_a_refusal_for_another_reason_is_an_error() -> None:
    pytest.importorskip("s3fs")
    with scripted((403, "AccessDenied")), pytest.raises(PermissionError):
        Store(f"s3://{BUCKET}/run").create("a", b"ours")


def test_a_server_that_ignores_the_condition_is_found_out() -> None:
    pytest.importorskip("s3fs")
    with scripted() as server:
        store = Store(f"s3://{BUCKET}/run")
        assert not creates_once(store)
        assert server.objects == {}
        assert store.create("a", b"first")
        assert not store.create("a", b"second")  # it looks before it writes, at least
        assert store.read("a") == b"first"
