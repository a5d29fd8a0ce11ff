"""A stand-in for the Hugging Face hub on loopback: repos, LFS objects and commits, in memory.

Large files go as Git LFS objects (its Xet store is not there). `break_after` drops the connection
of every upload once so many objects have arrived.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.http_server import in_thread

TOKEN = "hf_loopback"
_LARGE = (".tar", ".parquet", ".safetensors")


class Hub(ThreadingHTTPServer):
    """What the stand-in holds, and what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.objects: dict[str, bytes] = {}
        self.puts: list[str] = []
        self.unknown: list[str] = []
        self.break_after: int | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve until the block ends."""
    with in_thread(Hub()) as hub:
        yield hub


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if found := re.fullmatch(r"/api/(?:models|datasets)/([\w.-]+/[\w.-]+)(/.*)?", self._path()):
            return self._info(found[1], found[2] or "")
        if self._path() == "/api/whoami-v2":
            return self._json({"name": "me", "type": "user"})
        return self._not_known()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._json({"error": "Invalid token"}, 401)
        path = self._path()
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if found := re.fullmatch(r"/api/(\w+)/([\w.-]+/[\w.-]+)/preupload/main", path):
            return self._preupload(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        if found := re.fullmatch(r"/api/(\w+)/([\w.-]+/[\w.-]+)/commit/main", path):
            return self._commit(f"{found[1]}/{found[2]}", body)
        if path.startswith("/verify/"):
            return self._json({})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        return self._not_known()

    def do_PUT(self) -> None:
        oid = self._path().rpartition("/")[2]
        most = self.server.break_after
        if most is not None and len(self.server.objects) >= most:
            self.close_connection = True
            self.connection.close()
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.objects[oid] = body
        self.server.puts.append(oid)
        self._json({})

    def _path(self) -> str:
        return self.path.partition("?")[0]

    def _info(self, repo: str, rest: str) -> None:
        kind = self._path().split("/")[2]
        files = self.server.repos.get(f"{kind}/{repo}")
        if files is None:
            return self._json({"error": "Repository not found"}, 404)
        if rest.startswith("/tree/"):
            return self._json([])
        return self._json({"id": repo, "sha": "0" * 40, "siblings": [], "private": True})

    def _create(self, asked: dict[str, Any]) -> None:
        kind = {"dataset": "datasets"}.get(asked.get("type", ""), "models")
        owner = asked.get("organization") or "me"
        repo = f"{owner}/{asked['name']}"
        if f"{kind}/{repo}" in self.server.repos:
            return self._json({"error": "exists", "url": f"{self.server.url}/{repo}"}, 409)
        self.server.repos[f"{kind}/{repo}"] = {}
        self.server.private[f"{kind}/{repo}"] = (
            asked.get("private", False) or asked.get("visibility") == "private"
        )
        prefix = "datasets/" if kind == "datasets" else ""
        return self._json({"url": f"{self.server.url}/{prefix}{repo}", "name": repo})

    def _preupload(self, asked: dict[str, Any]) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(_LARGE) else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in asked["files"]
        ]
        self._json({"files": files})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = []
        for one in asked["objects"]:
            oid = one["oid"]
            href = {"href": f"{self.server.url}/lfs/{oid}"}
            verify = {"href": f"{self.server.url}/verify/{oid}"}
            there = oid in self.server.objects
            actions = {} if there else {"actions": {"upload": href, "verify": verify}}
            objects.append({"oid": oid, "size": one["size"], **actions})
        self._json({"transfer": "basic", "objects": objects}, kind="application/vnd.git-lfs+json")

    def _commit(self, repo: str, body: bytes) -> None:
        files = self.server.repos[repo]
        for line in body.splitlines():
            part = json.loads(line)
            value = part["value"]
            if part["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif part["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
        oid = hashlib.sha1(body, usedforsecurity=False).hexdigest()
        url = f"{self.server.url}/{repo}/commit/{oid}"
        self._json({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})

    def _not_known(self) -> None:
        self.server.unknown.append(f"{self.command} {self.path}")
        self._json({"error": f"not known here: {self.path}"}, 404)

    def _json(self, value: Any, status: int = 200, kind: str = "application/json") -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
