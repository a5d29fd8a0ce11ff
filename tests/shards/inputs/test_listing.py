"""Inputs are found, named and compared as the design says, and refused with what was looked for."""

import os
import pickle
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest

from shards.errors import UsageError
from shards.inputs.listing import (
    InputMismatch,
    _version,
    check_current,
    check_unchanged,
    compare_lists,
    list_inputs,
)
from shards.inputs.shard import InputChanged, InputError, InputShard

FILES = ["00000.tar", "00001.tar", "00002.tar.gz", "sub/day 1/00000.tar", "sub/x.tar"]
OTHERS = ["00000.parquet", "00000_stats.json", "readme"]
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["local", "memory"])
def web(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the URL of a folder with tars and other files."""
    root = str(tmp_path / "web") if request.param == "local" else f"memory://{uuid.uuid4().hex}/web"
    fs, path = fsspec.core.url_to_fs(root)
    for name in FILES + OTHERS:
        fs.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
        fs.pipe_file(f"{path}/{name}", name.encode())
    return root


def names(shards: list[InputShard]) -> list[str]:
    return [shard.shard for shard in shards]


def test_a_folder_is_walked(web: str) -> None:
    shards = list_inputs([web])
    assert names(shards) == sorted(["00000", "00001", "00002", "sub%2Fday%201%2F00000", "sub%2Fx"])
    for shard in shards:
        with fsspec.open(shard.url, "rb") as file:
            assert len(file.read()) == shard.size_bytes > 0
        assert shard.etag or shard.mtime
    assert list_inputs([web + "/"]) == shards


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("/{00000..00001}.tar", ["00000", "00001"]),
        ("/{00001,sub/x}.tar", ["00001", "sub%2Fx"]),
        ("/*.tar", ["00000", "00001"]),
        ("/0000?.tar", ["00000", "00001"]),
        ("/*", ["00000", "00001", "00002"]),
        ("/sub/*/0*.tar", ["day%201%2F00000"]),
        ("/s*/x.tar", ["sub%2Fx"]),
        ("/**/*.tar", ["00000", "00001", "sub%2Fday%201%2F00000", "sub%2Fx"]),
        ("/sub/x.tar", ["x"]),
    ],
)
def test_patterns_and_their_roots(web: str, pattern: str, expected: list[str]) -> None:
    assert names(list_inputs([web + pattern])) == expected


def test_a_list_and_a_root(web: str) -> None:
    given = [f"{web}/00000.tar", f"{web}/sub/day 1"]
    with pytest.raises(InputError, match=r"occur twice.*'00000'.*input\.root"):
        list_inputs(given)
    assert names(list_inputs(given, root=web)) == ["00000", "sub%2Fday%201%2F00000"]
    with pytest.raises(InputError, match="not below"):
        list_inputs([f"{web}/00000.tar"], root=f"{web}/sub")
    with pytest.raises(InputError, match="twice"):
        list_inputs([web, f"{web}/00000.tar"])


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("/nothing-*.tar", "matches no .*tar.gz"),
        ("/gone.tar", "there is no .*gone.tar"),
        ("/{00000..00003}.tar", "there is no .*00003.tar|there is no .*00002.tar"),
        ("/{00000", "unbalanced|there is no"),
        ("/{sub,00000.tar}", "is a folder"),
        ("/00000.parquet", "not_parquet"),
        ("/list.CSV", "is a table that clean does not read"),
    ],
)
def test_refused(web: str, pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list_inputs([web + pattern])


def test_refused_everywhere(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="refused"):
        list_inputs(["pipe:touch /tmp/x; cat a.tar"])
    with pytest.raises(InputError, match="no input"):
        list_inputs([])
    with pytest.raises(InputError, match="nosuchscheme"):
        list_inputs(["nosuchscheme://a/b.tar"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is an empty folder"):
        list_inputs([str(tmp_path / "empty")])


def test_local_urls_are_absolute_and_literal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a[1].tar", "b::c.tar"):
        Path(name).write_bytes(b"x")
    assert list_inputs(["a[1].tar"])[0].url == str(tmp_path / "a[1].tar")
    assert names(list_inputs(["b::c.tar"])) == ["b%3A%3Ac"]
    assert names(list_inputs(["."])) == ["a%5B1%5D", "b%3A%3Ac"]


def test_another_list_is_refused_with_the_difference(web: str) -> None:
    recorded = list_inputs([f"{web}/*.tar"])
    compare_lists(recorded, list_inputs([f"{web}/00000.tar", f"{web}/00001.tar"]))
    with pytest.raises(InputMismatch, match=r"1 shard\b.*1 no longer there: 00001"):
        compare_lists(recorded, recorded[:1])
    with pytest.raises(InputMismatch, match="1 new: x"):
        compare_lists(recorded, [*recorded, replace(recorded[0], shard="x")])
    with pytest.raises(InputMismatch, match=r"1 elsewhere: 00000: .* -> /y"):
        compare_lists(recorded, [replace(recorded[0], url="/y"), recorded[1]])


def test_changed_inputs(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"one")
    recorded = list_inputs([str(path)])
    sha256 = {"a": "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"}  # "one"
    check_unchanged(recorded, recorded, sha256)
    os.utime(path, (1, 1))  # touched, not changed
    check_unchanged(recorded, list_inputs([str(path)]), sha256)
    path.write_bytes(b"two")
    os.utime(path, (1, 1))
    with pytest.raises(InputChanged, match=r"'a'.*expected sha256 7692.*found sha256 3fc4"):
        check_unchanged(recorded, list_inputs([str(path)]), sha256)
    check_unchanged(recorded, list_inputs([str(path)]))  # nothing was made from it yet
    path.write_bytes(b"three")
    with pytest.raises(InputChanged, match="expected 3 bytes, found 5 bytes"):
        check_unchanged(recorded, list_inputs([str(path)]))


@pytest.mark.parametrize(
    ("info", "version"),
    [
        (
            {"ETag": '"5d41"', "LastModified": datetime(2026, 1, 1, tzinfo=UTC)},
            ("5d41", 1767225600.0),
        ),
        ({"etag": "CJ=", "mtime": NEW_YEAR}, ("CJ=", 1767225600.0)),
        ({"mtime": 3.5}, (None, 3.5)),
        ({}, (None, None)),
    ],
)
def test_what_stores_say_of_a_version(
    info: dict[str, object], version: tuple[str | None, float | None]
) -> None:
    assert _version(info) == version


def test_etags_decide_over_times() -> None:
    old = InputShard("s3://b/a.tar", "a", 3, etag="x", mtime=1.0)
    check_unchanged([old], [replace(old, mtime=2.0)], {"a": "not looked at"})
    with pytest.raises(InputChanged, match="expected etag x, found etag y"):
        check_unchanged([old], [replace(old, etag="y")])


@pytest.mark.parametrize("kind", [InputError, InputMismatch, InputChanged])
def test_errors_cross_processes(kind: type[ValueError]) -> None:
    assert str(pickle.loads(pickle.dumps(kind("what")))) == "what"


@pytest.mark.parametrize("pattern", ["", "/*.tar", "/{00000,pipe}.tar", "/pipe.tar"])
def test_a_pipe_among_shards_is_refused_by_name(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "00000.tar").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.tar")
    os.mkfifo(tmp_path / "no-shard")
    with pytest.raises(UsageError, match=r"pipe\.tar is a named pipe, expected a file"):
        list_inputs([f"{tmp_path}{pattern}"])
    assert names(list_inputs([f"{tmp_path}/0*.tar"])) == ["00000"]


def test_a_shard_that_changes_under_the_same_size_is_not_what_was_listed(web: str) -> None:
    (listed,) = list_inputs([f"{web}/00000.tar"])
    check_current(listed)
    fs, path = fsspec.core.url_to_fs(listed.url)
    content = fs.cat_file(path)
    fs.pipe_file(path, bytes(len(content)))
    if web.startswith("/"):
        os.utime(path, (1, 1))
    with pytest.raises(InputChanged, match=r"'00000'.*changed since it was listed: expected mtime"):
        check_current(listed)
    fs.rm_file(path)
    with pytest.raises(FileNotFoundError):
        check_current(listed)
