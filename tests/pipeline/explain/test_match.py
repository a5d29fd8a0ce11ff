"""Explaining a run's match: its own filter, its own pictures, or a plain word about why not."""

import io
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from models.checkpoints.locate import CheckpointError
from pipeline.explain.match import draw, explain_texts, open_explainer, read_sample_image
from shards.run.run import Run
from tests.support.explained_run import sample_of


def test_scores_come_out_as_the_run_has_them(explained_run: Run) -> None:
    explainer = open_explainer(explained_run)
    for address in ("00000/000000003", "hostile/h"):
        sample = sample_of(explained_run, address)
        picture = read_sample_image(explained_run, sample)
        assert isinstance(picture, Image.Image)
        judged = explain_texts(explainer, picture, sample["texts"])
        for one in judged:
            assert one.ablation.itm_logit == pytest.approx(one.text["itm_logit"], abs=1e-3)
        with Image.open(io.BytesIO(draw(explainer, picture, judged))) as sheet:
            assert sheet.width == 5 * 236 + 12
            assert sheet.height > 2 * 64


def test_another_filter_and_a_missing_one_are_refused(
    explained_run: Run, explained: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(explained / "filter", other)
    config = json.loads((other / "config.json").read_text())
    config["capfilt"] = {"itm_first_token": "cls"}
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="is not the filter of this run"):
        open_explainer(explained_run, str(other))
    with pytest.raises(CheckpointError):
        open_explainer(explained_run, str(tmp_path / "none"))


def test_a_rejected_sample_has_no_picture_to_explain(explained_run: Run) -> None:
    rejected = sample_of(explained_run, "hostile/i")
    said = read_sample_image(explained_run, rejected)
    assert said == "it was rejected before any model saw it"
