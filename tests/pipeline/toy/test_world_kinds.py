"""Worlds of fewer kinds, and the texts of a picture."""

import json
from pathlib import Path
from typing import Any

import pytest
import webdataset

from pipeline.toy.world import (
    COLOURS,
    SHAPES,
    ToyWorldConfig,
    is_true,
    scene_from_truth,
    toy_sample,
    write_toy_world,
)


@pytest.mark.parametrize("kinds", [2, 4, 8])
def test_a_world_of_fewer_kinds_has_so_many_colours_and_shapes(kinds: Any) -> None:
    config = ToyWorldConfig(samples=300, kinds=kinds)
    samples = [toy_sample(index, index % 2 == 0, config) for index in range(config.samples)]
    words = {word for sample in samples for word in sample.text.split()}
    assert len(words & set(COLOURS)) == len(words & set(SHAPES)) == kinds
    for sample in samples:
        assert is_true(sample.text, sample.scene) == (sample.kind == "true")


def test_all_texts_are_every_true_caption(tmp_path: Path) -> None:
    (path,) = write_toy_world(tmp_path, ToyWorldConfig(samples=5, all_texts=True))
    for sample in webdataset.WebDataset(str(path), shardshuffle=False):
        sidecar = json.loads(sample["json"])
        shown = scene_from_truth(sidecar["toy"])
        assert sidecar["toy"]["true_caption"] in sidecar["texts"]
        assert len(set(sidecar["texts"])) == 4
        assert all(is_true(text, shown) for text in sidecar["texts"])
