"""A part counts by its commit alone: once, with a tar that has its name only then."""

from pathlib import Path
from typing import Any

import pytest

from shards.download.record import (
    Download,
    DownloadCounts,
    NotADownload,
    Part,
    PartCommit,
    commit_part,
    create,
    newest_commits,
    now,
    numbered,
    open_same,
    publish,
    sweep,
)
from shards.download.tables import ROWS, write_rows
from shards.errors import DamagedFile
from shards.run.record import write_record
from shards.run.run import RunMismatch
from shards.store import Store

IDENTITY = {"list_sha256": ["aa"], "rows": 1}


@pytest.fixture
def download(tmp_path: Path) -> Download:
    return create(Store(str(tmp_path)), IDENTITY, {}, [Part(shard="00000", rows=1, sha256="x")])


def attempt(download: Download, name: str, retry: int = 0, tars: Any = None) -> PartCommit:
    """Publish what an attempt made."""
    store = download.store
    shard = numbered("00000", retry)
    with store.staging() as folder:
        (folder / "tar").write_bytes(name.encode())
        row = dict.fromkeys(ROWS.names) | {"row": 0, "status": "ok", "tries": 1, "sha256": name}
        write_rows(folder / "rows", [row], ROWS)
        base = f"record/rows/{shard}-{name}"
        pictures = publish(store, folder / "tar", "pictures", f"{base}.pictures", 1)
        rows = publish(store, folder / "rows", "rows", f"{base}.parquet", 1)
    return PartCommit(
        part="00000", retry=retry, attempt=name, fingerprint=download.fingerprint, rows=rows,
        pictures=pictures, tars=tars or (f"{shard}.tar",), counts=DownloadCounts(rows=1, ok=1),
        worth_a_retry=0, environment={}, started=now(), ended=now(),
    )  # fmt: skip


def tars(download: Download) -> dict[str, bytes]:
    root = Path(download.store.url())
    return {path.name: path.read_bytes() for path in root.rglob("*.tar")}


def test_the_first_of_two_attempts_counts_and_the_other_leaves_nothing(download: Download) -> None:
    first, second = attempt(download, "a"), attempt(download, "b")
    assert tars(download) == {}
    assert commit_part(download, first)
    assert not commit_part(download, second)
    assert tars(download) == {"00000.tar": b"a"}
    assert newest_commits(download) == {"00000": first}
    assert download.rows(first)[0]["sha256"] == "a"
    assert download.store.list("record/rows") == [first.rows.name]


def test_a_retry_counts_beside_what_it_retries(download: Download) -> None:
    commit_part(download, attempt(download, "a"))
    again = attempt(download, "b", 1, ("00000.tar", "00000-1.tar"))
    commit_part(download, again)
    assert newest_commits(download) == {"00000": again}
    assert tars(download) == {"00000.tar": b"a", "00000-1.tar": b"b"}


def test_what_a_kill_left_is_finished_or_removed(download: Download) -> None:
    done, orphan = attempt(download, "a"), attempt(download, "b")
    killed = download.store
    record = write_record(done.model_dump(mode="json"))
    killed.put("record/commits/00000.json", record)  # and no tar yet
    staging = Path(killed.url()) / ".tmp-killed"
    staging.mkdir()
    (staging / "pictures").write_bytes(b"half")
    assert tars(download) == {}
    for _ in range(2):
        sweep(download)
        assert tars(download) == {"00000.tar": b"a"}
        assert killed.list("record/rows") == [done.rows.name]
    assert orphan.rows.name not in killed.list()
    assert not staging.exists()


def test_another_list_is_refused_with_what_differs(download: Download) -> None:
    assert open_same(download.store, IDENTITY).parts == download.parts
    with pytest.raises(RunMismatch, match="rows: 1 -> 2"):
        open_same(download.store, IDENTITY | {"rows": 2})


def test_no_download_a_newer_and_a_damaged_one_are_told(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "o"))
    with pytest.raises(NotADownload, match="holds no download"):
        Download.open(store)
    store.put("record/download.json", b'{"version": 99}')
    with pytest.raises(NotADownload, match="newer"):
        Download.open(store)
    store.put("record/download.json", b'{"version": 1}')
    with pytest.raises(DamagedFile):
        Download.open(store)


def test_counts_lose_no_row() -> None:
    one = DownloadCounts(rows=3, ok=1, failed=2, failed_by_reason={"timeout": 2}, size_bytes=5)
    assert (one + one).failed_by_reason == {"timeout": 4}
    with pytest.raises(ValueError, match="rows are lost"):
        DownloadCounts(rows=3, ok=1, failed=1, failed_by_reason={"timeout": 1})
