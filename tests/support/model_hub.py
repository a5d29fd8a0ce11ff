"""A stand-in for the hub that gives models away: over HTTP on loopback, each download counted."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any

from tests.support.http_server import in_thread

COMMIT = "c" * 40


class ModelHub(ThreadingHTTPServer):
    """Files by repository and name, and how often each was fetched."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.fetched: Counter[str] = Counter()
        self.revisions: set[str] = set()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def giving() -> Iterator[ModelHub]:
    """Serve until the block ends."""
    with in_thread(ModelHub()) as hub:
        yield hub


class _Handler(BaseHTTPRequestHandler):
    server: ModelHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._file(counted=False)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if asked := re.fullmatch(r"/api/models/(.+?)/(revision|tree)/(\w+)", path):
            files = self.server.repos.get(asked[1])
            self.server.revisions.add(asked[3])
            if files is None:
                unknown = {"X-Error-Code": "RepoNotFound"}  # the hub's own word
                return self._send(b"{}", status=404, headers=unknown)
            if asked[2] == "revision":
                return self._send(json.dumps({"id": asked[1], "sha": COMMIT}).encode())
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": _etag(data)}
                for name, data in files.items()
            ]
            return self._send(json.dumps(tree).encode())
        return self._file(counted=True)

    def _file(self, *, counted: bool) -> None:
        asked = re.fullmatch(r"/(.+?)/resolve/(\w+)/(.+)", self.path.partition("?")[0])
        data = self.server.repos.get(asked[1], {}).get(asked[3]) if asked else None
        if data is None or asked is None:
            return self._send(b"", status=404)
        if counted:
            self.server.fetched[asked[3]] += 1
        commit = asked[2] if len(asked[2]) == len(COMMIT) else COMMIT
        return self._send(data, headers={"ETag": f'"{_etag(data)}"', "X-Repo-Commit": commit})

    def _send(
        self, body: bytes, status: int = 200, headers: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _etag(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
