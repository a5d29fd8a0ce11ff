"""What is no file is told at once, and never waited for."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from shards.files.regular import NotRegular, check_regular, open_regular
from shards.store import Store


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


MAKE: dict[str, Callable[[Path], None]] = {
    "a named pipe": os.mkfifo,
    "a socket": make_socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", MAKE)
def test_what_is_no_file_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    MAKE[kind](path)
    store = Store(str(tmp_path))
    reads: list[Callable[[], object]] = [
        lambda: open_regular(path),
        lambda: store.read("x"),
        lambda: store.read_many(["x"]),
        lambda: store.open("x"),
        lambda: store.sha256("x"),
        lambda: Store(f"file://{tmp_path}").read("x"),
    ]
    for read in reads:
        with pytest.raises(NotRegular, match=f"x is {kind}, expected a file"):
            read()


def test_files_are_read_and_folders_and_nothing_left_to_who_opens_them(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1")
    (tmp_path / "link").symlink_to(tmp_path / "x")
    for name in ("x", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"1"
        assert Store(str(tmp_path)).read(name) == b"1"
    check_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
