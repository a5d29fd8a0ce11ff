"""A clean set is published as a list of addresses, and made again from that list."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from shards.download.record import Download, newest_commits
from shards.store import Store
from tests.support.driving import InProcess, Models
from tests.support.http_server import in_thread
from tests.support.odd_server import Server
from tests.support.tars import read_members

SAME, CHANGED = 14, 10


def as_sent(folder: Path) -> dict[str, tuple[str, str | None]]:
    """Return the hash and the text of each picture in the tars of a download, by its address."""
    found = {}
    for tar in sorted(folder.glob("*.tar")):
        members = dict(read_members(tar))
        for name in members:
            if name.endswith(".json"):
                key, facts = name.removesuffix(".json"), json.loads(members[name])
                picture = hashlib.sha256(members[f"{key}.jpg"]).hexdigest()
                text = members.get(f"{key}.txt")
                found[facts["url"]] = (picture, None if text is None else text.decode())
    return found


def test_the_set_comes_again_but_for_pictures_that_are_others_by_now(
    capfilt: InProcess,
    toy_models: Models,
    flags: Callable[[Models, Path, Path], list[str]],
    tmp_path: Path,
    img2dataset: str,
) -> None:
    fetch = ("--direct", "--allow-private-addresses", "--workers=1", f"--img2dataset={img2dataset}")

    def run(*command: str) -> str:
        done = capfilt.run(*command)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    with in_thread(Server()) as server:
        start = f"http://127.0.0.1:{server.server_port}"
        paths = [f"pictures/{n}" for n in range(SAME)]
        paths += [f"odd/another-later/{n}" for n in range(CHANGED)]
        rows = [{"url": f"{start}/{path}", "text": f"the ring of {path}"} for path in paths]
        (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
        run("download", "list.jsonl", "web", *fetch)
        run(*flags(toy_models, tmp_path / "web", tmp_path / "run"), "--engine=local", "--direct")
        run("judge", "run", "--name=some", "--keep-fraction=web=0.6",
            "--keep-fraction=synthetic=0.2")  # fmt: skip
        run("export", "run", "--view=some", "--to=listed", "--form=index")
        run("export", "run", "--view=some", "--to=whole", "--form=parquet")
        run("download", "listed/data/train-*.parquet", "again", *fetch)

    index = pq.read_table(tmp_path / "listed" / "data").to_pylist()
    whole = {row["url"]: row for row in pq.read_table(tmp_path / "whole" / "data").to_pylist()}
    assert {row["url"] for row in index} == whole.keys()
    assert 0 < len(whole) < len(rows)
    changed = {url for url in whole if "another-later" in url}
    assert 0 < len(changed) < len(whole)
    assert as_sent(tmp_path / "again") == {
        url: (hashlib.sha256(row["image"]["bytes"]).hexdigest(), row["text"])
        for url, row in whole.items()
        if url not in changed
    }
    again = Download.open(Store(str(tmp_path / "again")))
    ended = [row for commit in newest_commits(again).values() for row in again.rows(commit)]
    assert {row["url"]: row["reason"] for row in ended} == {
        url: "hash_mismatch" if url in changed else None for url in whole
    }
