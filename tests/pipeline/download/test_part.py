"""A part is fetched, packed and committed: every row once, and an outage is no result."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.download import part
from pipeline.download.fetcher.process import Fetcher
from pipeline.download.part import Outage, PartTask, do_part, pending_tasks
from pipeline.download.prepare import ListRequest, prepare_download
from shards.download.record import Download, newest_commits
from shards.store import Store
from tests.support.http_server import in_thread
from tests.support.odd_server import Server, picture
from tests.support.tars import read_members

Url = Callable[[str], str]


@pytest.fixture
def begin(tmp_path: Path) -> Callable[[list[dict[str, Any]]], Download]:
    """Begin the download of some rows."""

    def make(rows: list[dict[str, Any]]) -> Download:
        path = tmp_path / "list.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        return prepare_download(Store(str(tmp_path / "out")), ListRequest(str(path)))

    return make


def run(download: Download, fetcher: Fetcher, retry: bool = False) -> list[dict[str, Any]]:
    names = [listed.shard for listed in download.parts]
    for task in pending_tasks(names, newest_commits(download), retry):
        do_part(download, task, fetcher, lambda _: None)
    return download.rows(newest_commits(download)["00000"])


def members(download: Download, tar: str = "00000.tar") -> dict[str, bytes]:
    return dict(read_members(download.store.path(tar)))


def test_rows_end_once_with_their_texts_and_facts(
    begin: Callable[..., Download], fetcher: Fetcher, url: Url, server: Server
) -> None:
    right = hashlib.sha256(picture("c")).hexdigest()
    rows: list[dict[str, Any]] = [
        {"url": url("pictures/a"), "caption": "first", "w": 3},
        {"url": url("pictures/a#top"), "caption": "second"},
        {"url": url("pictures/a"), "caption": "first"},
        {"url": url("pictures/b"), "caption": None, "sha256": "0" * 64},
        {"url": url("pictures/c"), "caption": "é 😀", "sha256": right.upper()},
        {"url": "ftp://x", "caption": "x"},
        {"url": None, "caption": "x"},
        {"url": url("pictures/d"), "caption": None},
    ]
    download = begin(rows)
    done = run(download, fetcher)
    assert [row["reason"] for row in done] == [
        *(None, None, "duplicate_url", "hash_mismatch", None, "bad_url", "null_value", None)
    ]
    assert server.seen == {f"/pictures/{name}": 1 for name in "abcd"}
    packed = members(download)
    assert [name for name in packed if name.endswith("jpg")] == [
        f"{row:09d}.jpg" for row in (0, 1, 4, 7)
    ]
    assert packed["000000000.jpg"] == packed["000000001.jpg"] == picture("a")
    assert packed["000000001.txt"] == b"second"
    assert packed["000000004.txt"].decode() == rows[4]["caption"]
    assert "000000007.txt" not in packed
    assert json.loads(packed["000000000.json"]) == {
        "key": "000000000",
        "url": rows[0]["url"],
        "row": 0,
        "sha256": hashlib.sha256(picture("a")).hexdigest(),
        "columns": {"w": 3},
    }
    assert done[4]["sha256"] == right


def test_what_failed_alone_is_tried_again_and_comes_into_a_tar_of_its_own(
    begin: Callable[..., Download], fetcher: Fetcher, url: Url, server: Server
) -> None:
    names = ("pictures/a", "odd/429-once/b", "odd/404/c", "odd/noai/d")
    download = begin([{"url": url(name), "text": name} for name in names])
    first = members(download) if run(download, fetcher) else {}
    again = run(download, fetcher, retry=True)
    assert [row["reason"] for row in again] == [None, None, "http_error", "opted_out"]
    assert [row["tries"] for row in again] == [1, 2, 1, 1]  # a 404 will be one the next time
    assert [row["tar"] for row in again] == ["00000.tar", "00000-1.tar", None, None]
    assert server.seen["/pictures/a"] == server.seen["/odd/noai/d"] == 1
    assert members(download) == first
    assert members(download, "00000-1.tar")["000000001.jpg"] == picture("b")
    commit = newest_commits(download)["00000"]
    assert (commit.retry, commit.tars) == (1, ("00000.tar", "00000-1.tar"))
    assert (commit.counts.rows, commit.counts.ok, commit.worth_a_retry) == (4, 2, 0)


def test_an_outage_is_not_recorded_and_the_part_is_done_again(
    begin: Callable[..., Download], fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "OUTAGE_FROM", 5)
    with in_thread(Server(down_after=20)) as server:
        port = server.server_port
        urls = [f"http://127.0.0.1:{port}/pictures/{number}" for number in range(60)]
        download = begin([{"url": url} for url in urls])
        with pytest.raises(Outage, match="of 60 addresses, nobody answered for"):
            run(download, fetcher)
        assert newest_commits(download) == {}
        assert [name for name in download.store.list() if "rows" in name or "tar" in name] == []
        server.down_after = 0
        assert {row["status"] for row in run(download, fetcher)} == {"ok"}


def test_a_few_dead_hosts_are_no_outage(
    begin: Callable[..., Download], fetcher: Fetcher, url: Url
) -> None:
    rows = [{"url": url(f"pictures/{n}")} for n in range(30)] + [
        {"url": f"http://127.0.0.{n}:9/x.jpg"} for n in range(2, 12)
    ]
    assert [row["status"] for row in run(begin(rows), fetcher)].count("ok") == 30


def test_where_nobody_answers_it_is_recorded_only_if_asked_for(
    begin: Callable[..., Download], fetcher: Fetcher
) -> None:
    download = begin([{"url": "http://127.0.0.1:9/x.jpg"}])
    with pytest.raises(Outage):
        run(download, fetcher)
    done = do_part(download, PartTask("00000"), fetcher, lambda _: None, outage_is_news=False)
    assert done.counts.failed_by_reason == {"connection_error": 1}
