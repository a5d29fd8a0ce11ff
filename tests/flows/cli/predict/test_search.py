"""`capfilt index` and `capfilt search`, as commands, on tars and on a run."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest
from PIL import Image

from models.blip import tokenizer
from models.blip.config import blip_config
from models.checkpoints import checkpoint
from pipeline.toy import world as toy_world
from pipeline.toy.world import ToyWorldConfig, toy_sample, write_toy_world
from tests.support.driving import InProcess, Models

WORLD = ToyWorldConfig(samples=30, samples_per_shard=12, noise=0, kinds=4, seed=21)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_toy_world(folder, WORLD)
    return folder


@pytest.fixture
def index(capfilt: InProcess, world: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "toy.index"
    done = capfilt.run("index", world, "--to", folder, "--model", "tiny-filter", "--features")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "30 images, flat"
    return folder


def asked(capfilt: InProcess, *flags: str | Path | int) -> list[dict[str, Any]]:
    done = capfilt.run("search", *map(str, flags), "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_words_find_their_picture_and_a_picture_its_words(
    capfilt: InProcess, index: Path, tmp_path: Path
) -> None:
    text = toy_sample(4, False, WORLD).text
    sheet = tmp_path / "found.png"
    (found,) = asked(capfilt, index, "--text", text, "-k", 3, "--out", sheet)
    assert found["query"] == text
    assert len(found["found"]) == 3
    scores = [one["score"] for one in found["found"]]
    assert scores == sorted(scores, reverse=True)
    with Image.open(io.BytesIO(sheet.read_bytes())) as drawn:
        assert drawn.width > 3 * 64
    picture = tmp_path / "one.png"
    place = found["found"][0]["place"]
    data = Path(place["url"].removeprefix("file://")).read_bytes()
    picture.write_bytes(data[place["offset"] : place["offset"] + place["size_bytes"]])
    said, alike = (
        asked(capfilt, index, "--image", picture, *flags)[0]["found"]
        for flags in ((), ("--for", "images"))
    )
    assert all(one["text"] for one in said)
    assert alike[0]["key"] == found["found"][0]["key"]
    done = capfilt.run("search", index, "--text", text, "--image", picture, "-k", "2")
    lines = done.stdout.splitlines()
    assert [lines[0], lines[1].split()] == [text, ["score", "itc"]]
    assert len(lines) == 8


def test_features_are_a_table(index: Path) -> None:
    (path,) = index.glob("*/features.parquet")
    counts = duckdb.execute(
        "SELECT kind, count(*), avg(list_inner_product(vector::FLOAT[], vector::FLOAT[])) "
        f"FROM '{path}' GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    assert [row[0] for row in counts] == ["image", "text"]
    assert [row[2] for row in counts] == pytest.approx([1, 1], abs=1e-4)


def test_a_run_is_indexed_by_its_kept_texts(
    capfilt: InProcess, toy_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run.index"
    done = capfilt.run("index", toy_run, "--to", folder, "--model", "tiny-filter", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    stats = json.loads(capfilt.run("stats", toy_run, "--json").stdout)
    assert record["images"]["count"] == stats["kept"]
    (found,) = asked(capfilt, folder, "--text", "a red circle", "-k", 1)
    assert found["found"][0]["score"] is not None  # its picture was read out of the run


def test_a_view_of_a_run_that_stores_no_picture(
    capfilt: InProcess, flags: Any, toy_models: Models, world: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = flags(toy_models, world, run)
    done = capfilt.run(*command, "--engine=local", "--direct", "--set=write.clean=none")
    assert done.returncode == 0, done.stderr
    none = ("--threshold", "synthetic=2", "--threshold", "web=0")
    assert capfilt.run("judge", run, "--name", "web", *none).returncode == 0
    for view, origins in ((("--view", "web"), {"web"}), ((), None)):
        folder = tmp_path / f"{len(view)}.index"
        done = capfilt.run("index", run, "--to", folder, "--model", "tiny-filter", *view)
        assert done.returncode == 0, done.stderr
        texts = ("--text", "a red circle", "--for", "texts", "-k", 100)
        found = asked(capfilt, folder, *texts)[0]["found"]
        assert {one["origin"] for one in found} == (origins or {"web", "synthetic"})
    (seen,) = asked(capfilt, tmp_path / "2.index", "--text", "a red circle", "-k", 2)
    for one in seen["found"]:
        assert one["score"] is not None
        assert Path(one["place"]["url"]).parent == world  # the input's tars, not the run's


def test_what_pretraining_wrote_is_searched_with_too(
    capfilt: InProcess, world: Path, tmp_path: Path
) -> None:
    words = tokenizer.train(toy_world.corpus(), 200)
    config = blip_config("tiny", **words.config_fields)
    model, folder = tmp_path / "pretrained", tmp_path / "x"
    checkpoint.create(model, "pretrain", config, words, seed=1)
    done = capfilt.run("index", world, "--to", folder, "--model", model)
    assert done.returncode == 0, done.stderr
    (found,) = asked(capfilt, folder, "--text", "a red circle", "-k", 30)
    assert len(found["found"]) == 30
    done = capfilt.run("search", folder, "--text", "a red circle", "--model", "tiny-filter")
    assert done.returncode == 2
    assert "search with that model, or build the index again" in done.stderr


def test_what_is_left_out_is_told_with_its_reason(
    capfilt: InProcess, world: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    whole = sorted(world.glob("*.tar"))[0].read_bytes()
    (folder / "a.tar").write_bytes(whole[: len(whole) // 2])
    (folder / "b.tar").write_bytes(b"no tar, though it is called so" * 100)
    done = capfilt.run("index", folder, "--to", tmp_path / "x", "--model", "tiny-filter")
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()[2:]
    assert told == ["left out: 1 shard_not_a_tar", "left out: 1 shard_truncated"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("search", "{index}"), "give --text, or --image"),
        (("search", "{index}", "--text", " !. "), "--text is empty"),
        (("search", "{index}", "--image", "{place}/none.png"), "none.png"),
        (("search", "{index}", "--image", "{place}/text.png"), "image_undecodable"),
        (("search", "{place}", "--text", "x"), "holds no index"),
        (("search", "{index}", "--text", "x", "--model", "tiny-captioner"), "expected a filter"),
        (("index", "{place}/none", "--to", "{place}/y", "--model", "tiny-filter"), "none"),
        (("index", "{world}", "--to", "{place}", "--model", "tiny-filter"), "belongs to no index"),
        (("index", "{world}", "--to", "{place}/y", "--view", "v"), "is for a run"),
        (("index", "{world}", "--to", "{place}/text.png", "--model", "tiny-filter"), "no folder"),
        (("index", "{world}", "--to", "{place}/y", "--model", "{place}/no"), "no checkpoint"),
    ],
)
def test_what_cannot_be_done_is_one_message(
    capfilt: InProcess, index: Path, world: Path, tmp_path: Path, flags: tuple[str, ...], said: str
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "text.png").write_text("no picture")
    done = capfilt.run(*(flag.format(index=index, place=place, world=world) for flag in flags))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_index_that_moved_is_searched_where_it_lies(
    capfilt: InProcess, index: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved.index"
    shutil.move(index, moved)
    assert asked(capfilt, moved, "--text", "a red circle")[0]["found"]
