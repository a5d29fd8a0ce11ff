"""img2dataset's process does part after part, tells how far it is, and ends when it should."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.download.fetcher.opener import Bounds
from pipeline.download.fetcher.process import Fetcher, FetcherLost, FetcherOptions
from tests.support.driving import wait_until
from tests.support.odd_server import Server, picture

Url = Callable[[str], str]
BOUNDS = Bounds(timeout_s=5.0, deadline_s=20.0, most_bytes=1 << 20, agent="capfilt of tests")


def make_part(folder: Path, addresses: list[str]) -> Path:
    folder.mkdir()
    table = pa.table({"url": pa.array(addresses, pa.string())})
    with pa.ipc.new_file(str(folder / "urls.arrow"), table.schema) as writer:
        writer.write_table(table)
    return folder


def lines_of(folder: Path) -> dict[int, dict[str, object]]:
    lines = map(json.loads, (folder / "rows.jsonl").read_text().splitlines())
    return {line["row"]: line for line in lines}


def test_each_address_ends_in_one_line_and_a_process_does_many_parts(
    fetcher: Fetcher, url: Url, server: Server, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        heard: list[Mapping[str, int]] = []
        addresses = [url("pictures/a"), url("odd/404/b"), url("odd/noai/c"), url("pictures/d")]
        folder = make_part(tmp_path / name, addresses)
        fetcher.fetch(folder, heard.append)
        lines = lines_of(folder)
        assert [lines[row].get("reason") for row in range(4)] == [
            *(None, "http_error", "opted_out", None)
        ]
        assert heard[-1] == {"ok": 2, "http_error": 1, "opted_out": 1}
        data = (folder / "pictures").read_bytes()
        for row, drawn in ((0, "a"), (3, "d")):
            start = int(str(lines[row]["offset"]))
            assert data[start:][: len(picture(drawn))] == picture(drawn)
    assert server.agents == {"capfilt of tests"}
    assert set(server.seen.values()) == {2}


def test_without_leave_nothing_here_is_asked(
    img2dataset: str, server: Server, url: Url, tmp_path: Path
) -> None:
    guarded = Fetcher(FetcherOptions(img2dataset, BOUNDS))
    try:
        port = server.server_port
        hosts = ("127.0.0.1", "localhost", "[::1]", "127.0.0.2", "2130706433", "0", "127.1")
        folder = make_part(tmp_path / "part", [f"http://{h}:{port}/pictures/a" for h in hosts])
        guarded.fetch(folder, lambda _: None)
        assert {line["reason"] for line in lines_of(folder).values()} == {"blocked_address"}
        assert server.connections == 0
        os.kill(guarded.pid, signal.SIGKILL)
        with pytest.raises(FetcherLost, match=r"ended \(-9\)"):
            guarded.fetch(make_part(tmp_path / "next", [url("pictures/a")]), lambda _: None)
    finally:
        guarded.close()


def test_it_ends_with_its_parent_however_that_ends(img2dataset: str) -> None:
    code = f"""
import os, signal
from pipeline.download.fetcher.opener import Bounds
from pipeline.download.fetcher.process import Fetcher, FetcherOptions
started = Fetcher(FetcherOptions({img2dataset!r}, Bounds(1, 1, 1, "x")))
print(started.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or b"Z" in _state(pid))


def _state(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2][:3]
    except OSError:
        return b"Z"
