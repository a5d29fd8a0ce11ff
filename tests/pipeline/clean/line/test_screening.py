"""Screening: the facts of cleaning without a model, once each, through losses and repeats."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.clean.config import screen_identity
from pipeline.clean.line.screening import ShardScreener
from pipeline.clean.lists import keep_lists, read_lists
from pipeline.clean.prepare import ExecutionConfig
from pipeline.clean.screen import ScreenConfig
from pipeline.media.decode import difference_hash
from shards.inputs.listing import list_inputs
from shards.run.attempt import Ending, end_attempt, start_attempt
from shards.run.commit import Commit
from shards.run.data import read_data
from shards.run.run import Run
from shards.run.snapshot import write_snapshot
from shards.run.verify.run import verify_run
from shards.store import Store

Screen = Callable[..., tuple[Run, list[dict[str, Any]]]]


@pytest.fixture
def tar(tmp_path: Path, noise: Any, encode: Any, tar_of: Any) -> Path:
    members: list[tuple[str, bytes]] = []
    for number in range(4):
        members.append((f"k{number}.png", encode(noise(60, 50, seed=number), "PNG")))
        members.append((f"k{number}.txt", b"a text"))
    members.append(("k4.png", b"no picture"))
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "000.tar").write_bytes(tar_of(members))
    return tmp_path / "web" / "000.tar"


@pytest.fixture
def screened(tmp_path: Path, tar: Path) -> Screen:
    def work(
        skip: Iterable[str] = (), block: Iterable[str] = (), lost: int = 0
    ) -> tuple[Run, list[dict[str, Any]]]:
        for name, lines in (("skip", skip), ("block", block)):
            (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
        lists = read_lists(str(tmp_path / "skip"), str(tmp_path / "block"))
        config = ScreenConfig(block_hashes=str(tmp_path / "block"))
        inputs = list_inputs([str(tar.parent)])
        named = screen_identity(config, "txt", lists)
        run = Run.create(Store(str(tmp_path / "run")), "", named, {}, inputs)
        keep_lists(run, lists)
        for _ in range(lost):
            end_attempt(run, "000", start_attempt(run, "000", False), Ending.DIED, "killed")
        screener = ShardScreener(run, config, ExecutionConfig(), {"device": "cpu"})
        heard: list[tuple[int, int]] = []
        done = screener.clean(run.inputs[0], lambda *counts: heard.append(counts))
        assert isinstance(done, Commit)
        assert heard[-1][0] == done.counts.samples_in == 5
        write_snapshot(run)
        assert verify_run(run).problems == ()
        file = done.file("samples")
        assert file is not None
        return run, read_data(run, file).to_pylist()

    return work


def test_what_can_be_read_is_kept_with_its_hashes(
    screened: Screen, noise: Any, encode: Any
) -> None:
    run, rows = screened()
    assert [row["reason"] for row in rows] == [None] * 4 + ["image_undecodable"]
    picture = noise(60, 50, seed=2)
    assert rows[2]["phash"] == difference_hash(picture)
    assert rows[2]["sha256"] == hashlib.sha256(encode(picture, "PNG")).hexdigest()
    assert run.only_screens


@pytest.mark.parametrize("lost", [1, 3])
def test_after_losses_it_is_screened_all_the_same(screened: Screen, lost: int) -> None:
    _, rows = screened(lost=lost)
    assert [row["status"] for row in rows] == ["ok"] * 4 + ["rejected"]


def test_what_is_skipped_is_a_row_without_facts(screened: Screen) -> None:
    _, rows = screened(skip=["000/k1", "000/k4", "007/k2"])
    assert [row["reason"] for row in rows] == [None, "skipped", None, None, "skipped"]
    assert [rows[1][name] for name in ("key", "sha256", "web_text")] == ["k1", None, None]


def test_of_what_must_never_show_only_its_hash_is_told(
    screened: Screen, noise: Any, encode: Any
) -> None:
    sha256 = hashlib.sha256(encode(noise(60, 50, seed=0), "PNG")).hexdigest()
    looks: Image.Image = noise(60, 50, seed=3)
    _, rows = screened(block=[sha256, f"dhash:{difference_hash(looks).hex()}"])
    blocked = "image_blocked"
    assert [row["reason"] for row in rows[:4]] == [blocked, None, None, blocked]
    assert (rows[0]["sha256"], rows[0]["web_text"], rows[0]["phash"]) == (sha256, None, None)
    assert (rows[3]["web_text"], rows[3]["phash"], rows[3]["url"]) == (None, None, None)
