"""What holds on local disk holds on S3, too: against a real server, by its own rules."""

import importlib
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shards.inputs.listing import check_current, list_inputs
from shards.inputs.reader import ShardReader, State, open_shard
from shards.inputs.shard import InputChanged, InputError
from shards.run import segment
from shards.run.commit import Commit, commit, read_commit, read_commits
from shards.run.repair import repair_run
from shards.run.run import Run
from shards.run.snapshot import open_snapshot, table_files, write_snapshot
from shards.run.verify.garbage import find_garbage, remove_garbage
from shards.run.verify.run import verify_run
from shards.statistics import run_statistics
from shards.store import Store, creates_once
from tests.shards.conftest import DoWork, MakeRun
from tests.support.many_shards import make_many
from tests.support.object_store import s3_server


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def place(bucket: str) -> str:
    return f"{bucket}/{uuid.uuid4().hex}/run"


def test_files_are_written_read_listed_and_deleted(place: str, tmp_path: Path) -> None:
    store = Store(place)
    assert store.list() == []
    store.put("b/two.json", b"2")
    store.put("one.json", b"1")
    store.put("one.json", b"1!")
    (tmp_path / "staged").write_bytes(b"data" * 1000)
    store.publish(tmp_path / "staged", "data/x-1.bin")
    assert store.list() == ["b/two.json", "data/x-1.bin", "one.json"]
    assert store.list("data") == ["data/x-1.bin"]
    assert store.list("none") == []
    assert store.read("one.json") == b"1!"
    assert store.size_bytes("data/x-1.bin") == 4000
    with store.open("data/x-1.bin") as file:
        file.seek(3996)
        assert file.read() == b"data"
    assert (tmp_path / "staged").exists()
    assert store.sha256("b/two.json") == (
        "d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35"
    )
    assert store.read_many(["one.json", "gone"]) == {"one.json": b"1!"}
    assert store.url("one.json") == f"{place}/one.json"
    store.delete("one.json")
    store.delete("one.json")
    assert not store.exists("one.json")
    assert store.exists("b/two.json")
    with pytest.raises(FileNotFoundError):
        store.read("one.json")


def test_what_another_writes_is_seen_at_once(place: str) -> None:
    ours, theirs = Store(place), Store(place)
    theirs.fs.invalidate_cache()
    assert (ours.list(), ours.exists("a")) == ([], False)
    theirs.put("a", b"1")
    assert (ours.list(), ours.exists("a"), ours.size_bytes("a")) == (["a"], True, 1)


def test_the_probe_finds_that_s3_creates_once(place: str) -> None:
    store = Store(place)
    assert creates_once(store)
    assert store.survey() == ()


def test_one_of_eight_threads_wins(place: str) -> None:
    store, barrier = Store(place), threading.Barrier(8)

    def create(number: int) -> bool:
        barrier.wait()
        return store.create(f"commits/{number // 8}.json", b"%d" % number * 1000)

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(80)))
    for turn in range(10):
        (winner,) = (number for number in range(turn * 8, turn * 8 + 8) if won[number])
        assert store.read(f"commits/{turn}.json") == b"%d" % winner * 1000


RACER = """
import sys
from shards.store import Store
store = Store(sys.argv[1])
store.exists("anything")
print("ready", flush=True)
sys.stdin.readline()
for turn in range(40):
    print(int(store.create(f"commits/{turn}.json", sys.argv[2].encode() * 1000)))
"""


def test_one_of_two_processes_wins(place: str) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, place, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    won = [[line == "1" for line in racer.communicate(timeout=60)[0].split()] for racer in racers]
    store = Store(place)
    for turn, (first, second) in enumerate(zip(*won, strict=True)):
        assert first != second
        assert store.read(f"commits/{turn}.json") == (b"a" if first else b"b") * 1000
    assert turn == 39


def test_a_whole_run(place: str, make_run: MakeRun, do_work: DoWork) -> None:
    run = make_run(place, committed=False)
    for shard in run.shards:
        works = [do_work(run, shard) for _ in range(2)]
        barrier = threading.Barrier(2)

        def compete(work: Commit, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            return commit(run, work)

        with ThreadPoolExecutor(2) as pool:
            won = list(pool.map(compete, works))
        assert sorted(won) == [False, True]
        standing = read_commit(run, shard)
        assert standing is not None
        assert standing.attempt == works[won.index(True)].attempt
    named = {file.name for done in read_commits(run).values() for file in done.files}
    assert set(run.store.list("data")) == named
    write_snapshot(run)
    checked = verify_run(Run.open(place))
    assert (checked.problems, checked.committed, checked.pending) == ((), 3, ())
    statistics = run_statistics(run)
    assert statistics["samples_in"] == sum(s.counts.samples_in for s in open_snapshot(run).shards)
    binned = statistics["histograms"]["web"]["counts"]
    assert sum(binned) == statistics["texts"]["web"]["in"] > 0
    assert run.store.read("clean.txt").decode().split() == [
        f"{place}/{file.name}" for file in table_files(open_snapshot(run).shards, "clean")
    ]


def test_a_run_is_opened_again_and_not_by_another_recipe(place: str, make_run: MakeRun) -> None:
    run = make_run(place)
    assert make_run(place, committed=False).fingerprint == run.fingerprint
    assert len(read_commits(make_run(place, committed=False))) == 3


def test_garbage_and_repair(place: str, make_run: MakeRun, do_work: DoWork) -> None:
    run = make_run(place)
    write_snapshot(run)
    run.store.put("commits/00001.json", b"{")
    assert repair_run(run).redo == ["00001"]
    torn = {name for name in run.store.list("data") if "/00001-" in name}
    assert commit(run, do_work(run, "00001"))
    write_snapshot(run)
    found = find_garbage(run, 0)
    assert {one.name for one in found.old} == torn
    assert all((one.age_s or 0) < 60 for one in found.old)
    assert find_garbage(run, 3600).old == ()
    remove_garbage(run, found.old)
    assert verify_run(run).problems == ()
    assert not torn & set(run.store.list("data"))


def test_a_run_is_taken_up_by_few_requests(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client_class: Any = importlib.import_module("aiobotocore.client").AioBaseClient
    requests, call = Counter[str](), client_class._make_api_call

    async def count(client: Any, operation: str, parameters: Any) -> Any:
        requests[operation] += 1
        return await call(client, operation, parameters)

    run = make_many(place, 20, 1)
    monkeypatch.setattr(segment, "MOST", 10)
    segment.write_segments(run, segment.read_committed(run), 1)
    run.store.put("commits/000003.json", b"torn since")
    monkeypatch.setattr(client_class, "_make_api_call", count)
    assert len(segment.read_committed(run).commits) == 19
    assert requests["GetObject"] == 3, "two segments, and what has changed"
    assert requests.total() < 3 + 6, requests
    requests.clear()
    assert len(read_commits(run)) == 19
    assert requests["GetObject"] == 20


def test_inputs_lie_on_s3(bucket: str, tar_bytes: Any, pairs: Any) -> None:
    folder = f"{uuid.uuid4().hex}/web"
    store = Store(f"{bucket}/{folder}")
    whole = tar_bytes(pairs(5))
    store.put("a/00000.tar", whole)
    store.put("a/00001.tar", whole[: len(whole) // 2])
    store.put("readme.txt", b"no tar")
    for given in (f"{bucket}/{folder}", f"{bucket}/{folder}/a/{{00000..00001}}.tar"):
        first, second = list_inputs([given], root=f"{bucket}/{folder}")
        assert (first.shard, second.shard) == ("a%2F00000", "a%2F00001")
        assert first.url == f"{bucket}/{folder}/a/00000.tar"
        assert (first.size_bytes, second.size_bytes) == (len(whole), len(whole) // 2)
        assert first.etag is not None
        assert first.etag != second.etag
    for shard, state in ((first, State.COMPLETE), (second, State.TRUNCATED)):
        with open_shard(shard.url) as file:
            reader = ShardReader(file)
            keys = [sample.key for sample in reader]
        assert keys == [f"k{number:03}" for number in range(len(keys))]
        assert (reader.state.state, reader.bytes_read) == (state, shard.size_bytes)


def test_a_shard_on_s3_that_changes_under_the_same_size(bucket: str) -> None:
    store = Store(f"{bucket}/{uuid.uuid4().hex}")
    store.put("00000.tar", b"one")
    (listed,) = list_inputs([store.url("00000.tar")])
    store.put("00000.tar", b"one")  # written again, not changed
    check_current(listed)
    store.put("00000.tar", b"two")
    with pytest.raises(InputChanged, match=f"expected etag {listed.etag}, found etag"):
        check_current(listed)


@pytest.mark.usefixtures("bucket")
def test_an_empty_bucket_and_one_that_is_not_there_are_named() -> None:
    import fsspec

    fsspec.filesystem("s3").mkdir("empty-bucket")
    said = {
        "s3://empty-bucket": "empty-bucket is an empty folder",
        "s3://empty-bucket/": "empty-bucket is an empty folder",
        "s3://empty-bucket/*.tar": r"matches no \*\.tar",
    }
    for given, what in said.items():
        with pytest.raises(InputError, match=f"empty-bucket.*{what}"):
            list_inputs([given])
    for given in ("s3://no-such-bucket", "s3://no-such-bucket/web/*.tar"):
        with pytest.raises(InputError, match="no-such-bucket"):
            list_inputs([given])
    with pytest.raises(InputError, match="names no bucket or folder"):
        list_inputs(["s3://"])


def test_tars_on_s3_in_any_case_without_hidden_names_and_runs(bucket: str) -> None:
    folder = f"{uuid.uuid4().hex}/data [v1]"
    store = Store(f"{bucket}/{folder}")
    for name in ("a.TAR", "b.tgz", ".c/d.tar", "._a.tar", "sub/e.tar"):
        store.put(name, b"x")
    for name in ("run.json", "recipe.yaml", "data/clean/f.tar"):
        store.put(f"out/{name}", b"x")
    assert [s.shard for s in list_inputs([store.url()])] == ["a", "b", "sub%2Fe"]
    assert [s.shard for s in list_inputs([f"{store.url()}/[ab].*"])] == ["a", "b"]
    assert [s.shard for s in list_inputs([f"{store.url()}/**/*.tar"])] == ["sub%2Fe"]
