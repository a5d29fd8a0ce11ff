"""A download through kills: every row ends once, and no picture stands in two tars."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from shards.download.record import Download, newest_commits
from shards.store import Store
from tests.support import odd_server
from tests.support.driving import Command
from tests.support.odd_server import picture
from tests.support.tars import read_members

ROWS, KILLS = 600, 20
PAUSE_S = 0.3  # of the server, before each picture: else the list is through before the last kill


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_kills_of_driver_and_workers_lose_and_double_nothing(
    tmp_path: Path, img2dataset: str
) -> None:
    serve = [sys.executable, odd_server.__file__, f"pause-s={PAUSE_S}"]
    command, chance, done = Command([], tmp_path), random.Random(20), []
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        start = f"http://127.0.0.1:{int(server.stdout.readline())}"
        rows = [{"url": f"{start}/pictures/{n}", "text": str(n)} for n in range(ROWS)]
        (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
        flags = ("--direct", "--allow-private-addresses", "--part-size=15", "--threads=2")
        asked = ("download", "list.jsonl", "web", *flags, f"--img2dataset={img2dataset}")
        running = command.start(*asked)
        for strike in range(KILLS):
            time.sleep(chance.uniform(1.0, 4.0))
            assert running.poll() is None, "the list was through before the last kill"
            done.append(len(list((tmp_path / "web" / "record" / "commits").glob("*.json"))))
            victims = [psutil.Process(running.pid)]
            if strike % 2:  # one of its workers, now and then; the driver begins its part again
                victims = victims[0].children() or victims
            victims[0].send_signal(signal.SIGKILL)
            if victims[0].pid == running.pid:
                command.wait(running)
                running = command.start(*asked)
        last = command.wait(running)
        server.kill()
    assert last.returncode == 0, last.stderr
    assert len(set(done)) > KILLS // 4, done  # they struck at many points of the list
    download = Download.open(Store(str(tmp_path / "web")))
    commits = newest_commits(download)
    ended = [row for commit in commits.values() for row in download.rows(commit)]
    assert Counter(row["row"] for row in ended) == Counter(range(ROWS))
    assert {row["status"] for row in ended} == {"ok"}
    tars = sorted((tmp_path / "web").rglob("*.tar"))
    assert [tar.name for tar in tars] == sorted(t for c in commits.values() for t in c.tars)
    keys = Counter(name for tar in tars for name, _ in read_members(tar) if name.endswith("jpg"))
    assert keys == Counter(f"{n:09d}.jpg" for n in range(ROWS))
    stored = {name: data for tar in tars for name, data in read_members(tar)}
    assert all(stored[f"{n:09d}.jpg"] == picture(str(n)) for n in range(ROWS))
