"""A folder becomes virtual shards in the order of names, and nothing leads out of it."""

import json
import os
from pathlib import Path

import pytest

from shards.inputs.folders import listing as module
from shards.inputs.listing import list_inputs
from shards.inputs.opening import open_samples
from shards.inputs.reader import RawSample
from shards.inputs.shard import InputError, InputOptions
from tests.shards.inputs.finding.test_find import make


def read(folder: Path, root: Path | None = None, most: int = 1_000) -> dict[str, list[RawSample]]:
    options = InputOptions(samples_per_shard=most)
    rows = {}
    for shard in list_inputs([str(folder)], None if root is None else str(root), options):
        with open_samples(shard) as reader:
            rows[shard.shard] = list(reader)
            assert reader.bytes_read == shard.size_bytes
    return rows


def test_samples_are_divided_in_the_order_of_names(tmp_path: Path) -> None:
    make(tmp_path, "b.jpg", "a.jpg", "a.txt", "s/c.png", "s/d.gif", "t/e.webp", ".h/f.jpg")
    divided = read(tmp_path, most=2)
    keys = {name: [raw.key for raw in rows] for name, rows in divided.items()}
    assert keys == {"00000": ["a", "b"], "00001": ["s/c", "s/d"], "00002": ["t/e"]}
    assert list(read(tmp_path, tmp_path.parent)) == [f"{tmp_path.name}%2F00000"]


def test_two_folders_share_no_name_below_a_root(tmp_path: Path) -> None:
    make(tmp_path, "x/a.jpg", "y/a.jpg")
    folders = [str(tmp_path / name) for name in ("x", "y")]
    assert [s.shard for s in list_inputs(folders, str(tmp_path))] == ["x%2F00000", "y%2F00000"]
    with pytest.raises(InputError, match=r"'00000'.*set input\.root"):
        list_inputs(folders)
    with pytest.raises(InputError, match="named twice"):
        list_inputs([folders[0]] * 2)


def test_what_leads_out_is_never_opened(tmp_path: Path) -> None:
    make(tmp_path, "out/secret.jpg", "out/secret.txt", "in/a.jpg", "in/b.jpg", "in/real.jpg")
    source = tmp_path / "in"
    (source / "link.jpg").symlink_to("../out/secret.jpg")
    (source / "inner.jpg").symlink_to("real.jpg")
    (source / "a.txt").symlink_to("../out/secret.txt")
    (source / "away").symlink_to("../out")
    (source / "dead.jpg").symlink_to("nowhere")
    os.mkfifo(source / "pipe.jpg")
    (rows,) = read(source).values()
    reasons = {raw.key: (raw.reason, raw.image is None) for raw in rows}
    unsafe = ("unsafe_member", True)
    assert reasons == {
        "b": (None, False),
        "real": (None, False),
        "inner": (None, False),
        **dict.fromkeys(("a", "link", "away/secret", "dead", "pipe"), unsafe),
    }
    (below,) = read(source, tmp_path).values()  # both are below this root
    assert {raw.key for raw in below if raw.reason} == {"dead", "pipe"}


def test_rows_of_tables_become_samples_whatever_is_there(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b.jpg", "b.txt", "noending", "c.jpg", ".hidden.jpg")
    rows = [
        {"file_name": name, "text": name}
        for name in ("a.jpg", "noending", "gone.jpg", "../x.jpg", "a.jpg", ".hidden.jpg")
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (samples,) = read(tmp_path).values()
    told = {raw.key: (raw.reason, raw.image, raw.text) for raw in samples}
    assert told == {
        "a": (None, b"x", b"a.jpg"),
        "a#2": (None, b"x", b"a.jpg"),
        "b": (None, b"x", b"x"),
        "c": (None, b"x", None),
        "noending": (None, b"x", b"noending"),
        "gone": (None, None, b"gone.jpg"),
        "../x": ("unsafe_member", None, b"../x.jpg"),
        ".hidden": (None, None, b".hidden.jpg"),
    }


def test_what_is_too_large_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"x" * 10)
    monkeypatch.setattr(module, "LARGEST_FILE_BYTES", 9)
    monkeypatch.setattr(module.FolderListing._stat, "__defaults__", (9,))
    (rows,) = read(tmp_path).values()
    assert [(raw.reason, raw.detail) for raw in rows] == [
        (None, None),
        ("unsafe_member", "file of 10 bytes, limit 9"),
    ]


def test_what_belongs_to_no_picture_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, "a.jpg", "a.txt", "lone.txt", "a.mask.png", "Thumbs.db")
    read(tmp_path)
    assert "belong to no picture, not used: 1 .txt, 1 .png" in caplog.text


def test_runs_in_the_folder_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "old/run.json", "old/report/b.png")
    (rows,) = read(tmp_path).values()
    assert [raw.key for raw in rows] == ["a"]
