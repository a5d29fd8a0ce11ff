"""`capfilt download`: a list of addresses in, tars and a table out."""

import json
from pathlib import Path

import pytest

from tests.support.driving import InProcess
from tests.support.http_server import in_thread
from tests.support.odd_server import Server

FLAGS = ("--direct", "--allow-private-addresses", "--workers=1")


def test_a_list_becomes_tars_and_a_table(
    capfilt: InProcess, tmp_path: Path, img2dataset: str
) -> None:
    with in_thread(Server()) as server:
        start = f"http://127.0.0.1:{server.server_port}"
        lines = [f"{start}/pictures/a\ta dog", f"{start}/odd/503/b\ta cat", "ftp://x\ta cow"]
        (tmp_path / "list.tsv").write_text("\n".join(lines))
        flags = (*FLAGS, f"--img2dataset={img2dataset}")
        done = capfilt.run("download", "list.tsv", "web", *flags)
        assert done.returncode == 0, done.stderr
        for words in ("http_error", "bad_url", "1 tar", "add --retry", "capfilt clean --input"):
            assert words in done.stdout
        assert "no header" in done.stderr
        assert (tmp_path / "web" / "00000.tar").is_file()
        again = capfilt.run("download", "list.tsv", "web", *flags, "--retry", "--json")
        numbers = json.loads(again.stdout)
        assert (numbers["rows"], numbers["ok"], numbers["failed"]) == (3, 1, 2)
        assert server.seen["/odd/503/b"] == 2
        assert server.seen["/pictures/a"] == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("url,caption\n", ["list.csv", "empty_table"]),
        ("name,n\ncat,1\n", ["list.csv", "missing_column", "'name', 'n'"]),
    ],
)
def test_a_list_that_cannot_be_read_is_told(
    capfilt: InProcess, tmp_path: Path, img2dataset: str, text: str, words: list[str]
) -> None:
    (tmp_path / "list.csv").write_text(text)
    done = capfilt.run("download", "list.csv", "web", *FLAGS, f"--img2dataset={img2dataset}")
    assert done.returncode == 2
    assert [word for word in words if word not in done.stderr] == []


def test_without_img2dataset_it_says_what_to_do(
    capfilt: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPFILT_IMG2DATASET", str(tmp_path / "python"))
    (tmp_path / "list.csv").write_text("url\nhttp://a.org/1.jpg\n")
    done = capfilt.run("download", "list.csv", "web", *FLAGS)
    assert done.returncode == 2
    assert "pip install -r" in done.stderr


def test_a_bound_that_cannot_be_is_told(capfilt: InProcess) -> None:
    done = capfilt.run("download", "urls.csv", "web", f"--max-bytes={(1 << 31) + 1}", "--direct")
    assert done.returncode == 2
    assert "--max-bytes" in done.stderr
    assert "2147483648" in done.stderr
