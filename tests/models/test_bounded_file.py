"""Only plain files are read, and only so much of them."""

import os
from pathlib import Path

import pytest

from models.bounded_file import open_plain, read_bounded


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    (tmp_path / "link").symlink_to(path)
    assert read_bounded(tmp_path / "link", 5) == b"12345"
    with pytest.raises(ValueError, match=r"file has more than 0 MiB"):
        read_bounded(path, 4)


def test_what_never_ends_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with (
            pytest.raises(ValueError, match=f"{name} is no plain file"),
            open_plain(tmp_path / name),
        ):
            pass
    with pytest.raises(IsADirectoryError):
        read_bounded(tmp_path, 1)
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "none", 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\xef\xbb\xbf  <!DOCTYPE html>", "is a web page"),
        (b"<HTML>", "is a web page"),
        (b"<?xml version='1.0'?><Error/>", "is a web page"),
    ],
)
def test_what_downloads_leave_in_the_place_of_a_file(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=rf"/file is .*{message}|/file {message}"):
        read_bounded(tmp_path / "file", 1000)
    (tmp_path / "file").write_bytes(b"{}" + content)
    assert read_bounded(tmp_path / "file", 1000) == b"{}" + content
