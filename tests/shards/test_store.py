"""Files appear whole, under names below the root, once."""

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shards.store import Store, UnusableName, creates_once


def test_write_read_list_delete(any_url: str) -> None:
    store = Store(any_url)
    assert store.list() == []
    store.put("b/two.json", b"2")
    store.put("one.json", b"1")
    store.put("one.json", b"1!")
    assert store.list() == ["b/two.json", "one.json"]
    assert store.list("b") == ["b/two.json"]
    assert store.list("none") == []
    assert store.read("one.json") == b"1!"
    assert store.size_bytes("one.json") == 2
    assert store.read_many(["one.json", "gone", "b/two.json"]) == {
        "one.json": b"1!",
        "b/two.json": b"2",
    }
    assert store.read_many(["one.json"]) == {"one.json": b"1!"}
    store.delete("one.json")
    store.delete("one.json")
    assert not store.exists("one.json")
    with pytest.raises(FileNotFoundError):
        store.read("one.json")


def test_create_only_if_absent(any_url: str) -> None:
    store = Store(any_url)
    assert store.create("commits/a.json", b"first")
    assert not store.create("commits/a.json", b"second")
    assert store.read("commits/a.json") == b"first"
    assert store.list() == ["commits/a.json"]


def test_publish(any_url: str) -> None:
    store = Store(any_url)
    with store.staging() as folder:
        (folder / "x").write_bytes(b"data")
        assert store.list() == []
        store.publish(folder / "x", "data/x-1.bin")
    assert store.read("data/x-1.bin") == b"data"
    assert store.list() == ["data/x-1.bin"]
    assert not folder.exists()


def test_a_folder_is_none_of_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store("memory://named-among-its-files")
    store.put("attempts/0/a.json", b"{}")
    found = store.fs.find
    monkeypatch.setattr(store.fs, "find", lambda top, **more: [top, *found(top, **more)])
    assert store.list("attempts") == ["attempts/0/a.json"]


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a//b", "", ".", "a/./b"])
def test_names_that_leave_the_root_are_refused(any_url: str, name: str) -> None:
    store = Store(any_url)
    for write in (store.put, store.create):
        with pytest.raises(ValueError, match="plain name"):
            write(name, b"x")


def test_urls_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Store("run").url("a/b") == str(tmp_path / "run/a/b")
    assert Store("memory://r/run").url("a").startswith("memory://")


def test_the_probe_finds_a_store_that_creates_once(any_url: str) -> None:
    store = Store(any_url)
    assert creates_once(store)
    assert [file for file in store.survey() if not file.is_folder] == []


def test_a_survey_shows_all_there_is(any_url: str) -> None:
    store, before_s = Store(any_url), time.time() - 2
    store.put("b/two.bin", b"22")
    with store.staging() as folder:
        (folder / "half").write_bytes(b"abc")
        found = {file.name: file for file in store.survey()}
    staged = folder.name
    expected: dict[str, tuple[int, str | None]] = {"b/two.bin": (2, None)}
    if store.is_local:
        expected |= {"b": (0, None), staged: (0, staged), f"{staged}/half": (3, staged)}
    assert {name: (file.size_bytes, file.temporary) for name, file in found.items()} == expected
    assert {name for name, file in found.items() if file.is_folder} == expected.keys() & {
        "b",
        staged,
    }
    for file in found.values():
        assert before_s < (file.modified_s or 0) < time.time() + 2


def test_a_survey_of_a_folder_shows_what_lies_below_it(any_url: str) -> None:
    store = Store(any_url)
    assert store.survey("logs") == ()
    for name in ("logs/a.jsonl", "logs/deep/b.jsonl", "logs2/c.jsonl", "d.jsonl"):
        store.put(name, name.encode())
    files = [file for file in store.survey("logs") if not file.is_folder]
    assert [(file.name, file.size_bytes) for file in files] == [
        ("logs/a.jsonl", 12),
        ("logs/deep/b.jsonl", 17),
    ]


KILLED = """
import sys
from shards.store import Store
store = Store(sys.argv[1])
number = 0
while True:
    number += 1
    data = b"%08d" % number * 20_000
    store.create(f"create/{number}", data)
    store.put("put/one", data)
    with store.staging() as folder:
        (folder / "x").write_bytes(data)
        store.publish(folder / "x", f"publish/{number}")
    if number == 1:
        print("ready", flush=True)
"""


def test_a_killed_writer_leaves_whole_files_only(tmp_path: Path) -> None:
    for turn in range(8):
        root = tmp_path / str(turn)
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(root)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05 + 0.017 * turn)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        store = Store(str(root))
        names = store.list()
        assert names
        for name in names:
            data = store.read(name)
            assert len(data) == 160_000
            assert data == data[:8] * 20_000


def test_a_failed_write_surfaces_and_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    store = Store(str(tmp_path))
    try:
        for write in (store.create, store.put):
            with pytest.raises(OSError, match="File too large"):
                write("a/b", b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "url", ["", "s3://", "s3:///", "nosuch://a", "a\0b", "s3://a\0b", "\ud800"]
)
def test_what_can_name_nothing_is_refused(url: str) -> None:
    with pytest.raises(UnusableName, match=r"names? no|Protocol not known|is no path or URL"):
        Store(url)


def test_names_that_are_no_text_are_names(tmp_path: Path) -> None:
    store = Store(f"{tmp_path}/\udcff")
    store.put("\udcfe", b"1")
    assert Store(f"{tmp_path}/\udcff").read("\udcfe") == b"1"
