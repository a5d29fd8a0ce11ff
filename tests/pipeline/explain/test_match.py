"""Explaining a run's match: its own filter, its own pictures, or a plain word about why not."""

import io
import json
import random
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models.checkpoints import weights
from models.checkpoints.weights import CheckpointError
from pipeline.explain.match import draw, explain_texts, open_explainer, read_sample_image
from pipeline.explain.sample import explain
from pipeline.explain.source_images import read_source_images
from pipeline.report.page import build_report
from pipeline.toy.world import ToyWorldConfig, scene, write_toy_world
from pipeline.toy.world import draw as draw_scene
from shards.run.run import Run
from shards.run.view import open_view

HOSTILE = "a <script>alert(1)</script> \u202eelcric red"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from flows.recipe import Recipe
    from flows.stages import clean

    folder = tmp_path_factory.mktemp("explained")
    world = folder / "world"
    write_toy_world(world, ToyWorldConfig(samples=12, noise=1.0, kinds=4, seed=5))
    with tarfile.open(world / "hostile.tar", "w") as tar:
        picture = io.BytesIO()
        draw_scene(scene(random.Random(7), 2, 4)).save(picture, "PNG")
        rows = {"h.png": picture.getvalue(), "h.txt": HOSTILE.encode(), "i.png": b"broken"}
        for name, data in (rows | {"i.txt": b"x"}).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    shutil.copytree(weights.SHIPPED["tiny-filter"], folder / "filter")
    recipe = Recipe.model_validate(
        {
            "input": {"urls": [str(world)]},
            "output": str(folder / "run"),
            "dtype": "fp32",
            "caption": {"model": str(weights.SHIPPED["tiny-captioner"])},
            "score": {"model": str(folder / "filter")},
            "engine": {"kind": "local"},
        }
    )
    job = clean.prepare(recipe)
    clean.finish(job, clean.clean_shards(job, _Silent()))
    return folder


class _Silent:
    def begin(self, *_: Any) -> None: ...
    def under_way(self, *_: Any) -> None: ...
    def ended(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def run(place: Path) -> Run:
    return Run.open(str(place / "run"))


def sample_of(run: Run, address: str) -> dict[str, Any]:
    found: dict[str, Any] = explain(run, address)["samples"][0]
    return found


def test_scores_come_out_as_the_run_has_them(run: Run) -> None:
    explainer = open_explainer(run)
    for address in ("00000/000000003", "hostile/h"):
        sample = sample_of(run, address)
        picture = read_sample_image(run, sample)
        assert isinstance(picture, Image.Image)
        explained = explain_texts(explainer, picture, sample["texts"])
        for one in explained:
            assert one.ablation.itm_logit == pytest.approx(one.text["itm_logit"], abs=1e-3)
        with Image.open(io.BytesIO(draw(explainer, picture, explained))) as sheet:
            assert sheet.width == 5 * 236 + 12
            assert sheet.height > 2 * 64


def test_another_filter_and_a_missing_one_are_refused(
    run: Run, place: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(place / "filter", other)
    config = json.loads((other / "config.json").read_text())
    config["capfilt"] = {"itm_first_token": "cls"}
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="is not the filter of this run"):
        open_explainer(run, str(other))
    with pytest.raises(CheckpointError):
        open_explainer(run, str(tmp_path / "none"))


def test_a_picture_that_is_gone_or_changed_is_told(place: Path, tmp_path: Path, run: Run) -> None:
    sample = sample_of(run, "00000/000000003")
    digests = {sample["index"]: sample["sha256"]}
    url = str(place / "world" / "00000.tar")
    ((index, data),) = read_source_images(url, digests)
    assert (index, type(data)) == (3, bytes)
    ((_, why),) = read_source_images(str(tmp_path / "gone.tar"), digests)
    assert why == "the input shard is gone"
    ((_, why),) = read_source_images(url, {3: "0" * 64})
    assert isinstance(why, str)
    assert "changed since" in why
    rejected = sample_of(run, "hostile/i")
    assert read_sample_image(run, rejected) == "it was rejected before any model saw it"


def test_the_report_says_which_words_sank_the_match(run: Run) -> None:
    said: list[str] = []
    page = build_report(run, open_view(run), said.append, 12, 4).decode()
    assert page.count('class="doubt"') >= 1
    assert "sunk by" in page
    assert 'alt="Where the filter looked for' in page
    assert "<script>alert(1)" not in page
    assert said.count("choosing samples") == 1
    assert sum(line.startswith("explaining") for line in said) <= 4
    assert 'class="doubt"' not in build_report(run, open_view(run), said.append, 12, 0).decode()


def test_a_report_without_the_filter_says_so(run: Run, place: Path) -> None:
    hidden = place / "hidden"
    (place / "filter").rename(hidden)
    try:
        page = build_report(run, open_view(run), lambda _: None, 12, 4).decode()
    finally:
        hidden.rename(place / "filter")
    assert "no words are explained" in page
    assert 'class="doubt"' not in page
