"""Overlays: heat where a map is high, a label under each word, nothing hostile drawn raw."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.blip.config import blip_config
from models.blip.tokenizer import train
from models.checkpoints import checkpoint
from models.roles.attention_explainer import AttentionExplainer, WordMaps
from pipeline.explain import heatmap as attend
from pipeline.explain.heatmap import AttentionOverlay
from pipeline.media import sheet

CORPUS = ["a red ring above a blue star", "two small dogs sit near an old wooden house"] * 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = train(CORPUS, 120)
    config = blip_config("tiny", **words.config_fields)
    folder = tmp_path_factory.mktemp("attend")
    checkpoint.create(folder / "filter", "filter", config, words, seed=3)
    checkpoint.create(folder / "captioner", "captioner", config, words, seed=3)
    return folder


@pytest.fixture(scope="module")
def matcher(folders: Path) -> AttentionExplainer:
    return AttentionExplainer.load(folders / "filter", dtype="fp32")


@pytest.fixture(scope="module")
def captioner(folders: Path) -> AttentionExplainer:
    return AttentionExplainer.load(folders / "captioner", role="captioner", dtype="fp32")


@pytest.fixture
def picture() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def opened(png: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(png))
    image.load()
    assert image.format == "PNG"
    return image


def made(words: list[str], maps: torch.Tensor) -> WordMaps:
    mean = maps.mean(0) if len(maps) else torch.zeros(2, 2)
    return WordMaps(words, maps, mean, 1.5, 0)


def overlay_match(
    explainer: AttentionExplainer, picture: Image.Image, text: str
) -> AttentionOverlay:
    image = explainer.preprocess.resize(picture.convert("RGB"))
    return attend.overlay(picture, explainer.match(image, text))


def overlay_caption(
    explainer: AttentionExplainer, picture: Image.Image, text: str
) -> AttentionOverlay:
    return attend.overlay(picture, explainer.caption(explainer.preprocess.resize(picture), text))


def test_every_word_has_a_map(
    matcher: AttentionExplainer, captioner: AttentionExplainer, picture: Image.Image
) -> None:
    text = "A red ring, near two houses"
    image = matcher.preprocess.resize(picture)
    found = matcher.match(image, text)
    assert found.words == ["a", "red", "ring", "[UNK]", "near", "two", "houses"]  # no comma known
    assert found.maps.shape == (7, 8, 8)
    assert found.maps.min() >= 0
    assert (found.maps.amax((1, 2)) > 0).all()
    written = captioner.caption(image, "a red ring", prompt="two small")
    assert written.words == ["a", "red", "ring"]
    assert written.maps.max() > 0
    shown = overlay_match(matcher, picture, text)
    assert shown.words == found.words
    opened(shown.png)
    assert overlay_caption(captioner, picture, "a red ring").words == written.words


def test_texts_without_words_and_long_ones(
    matcher: AttentionExplainer, captioner: AttentionExplainer, picture: Image.Image
) -> None:
    for text in ("", "!!!", "\x00"):
        assert overlay_match(matcher, picture, text).words == []
    assert overlay_caption(captioner, picture, "").words == []
    long = overlay_match(matcher, picture, "a " * 500)
    assert len(long.words) + long.left_out == 62  # 64 positions, two of them for special tokens
    assert len(long.words) == attend.MOST_WORDS
    opened(long.png)


def test_heat_is_where_the_map_is_high() -> None:
    grey = Image.new("RGB", (80, 40), (128, 128, 128))
    values = np.zeros((2, 4))
    values[1, 3] = 2.0  # bottom right, in a picture twice as wide as high
    found = np.asarray(attend.heat(grey, values)).astype(int)
    change = np.abs(found - 128).sum(-1)
    assert change[25:, 65:].min() > 20
    assert change[:15, :50].max() <= 3
    assert np.array_equal(np.asarray(attend.heat(grey, np.zeros((2, 4)))), np.asarray(grey))


def test_each_word_is_drawn_against_its_own_highest(picture: Image.Image) -> None:
    maps = torch.tensor([[[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.01], [0.0, 0.0]]])
    page = opened(attend.overlay(picture, made(["strong", "weak"], maps)).png)

    def cell(number: int) -> np.ndarray:
        x = 12 + number * (sheet.CELL + 12)
        return np.asarray(page.crop((x, 12, x + 160, 12 + 90))).astype(int)

    assert np.array_equal(cell(2), cell(3))
    assert np.abs(cell(2) - cell(0)).max() > 50
    assert np.array_equal(cell(0), np.asarray(picture).astype(int))


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (5, 7), (900, 600)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
def test_pictures_of_any_shape(
    matcher: AttentionExplainer, size: tuple[int, int], mode: str
) -> None:
    shown = overlay_match(matcher, Image.new(mode, size), "a red ring")
    page = opened(shown.png)
    assert page.width <= 5 * (sheet.CELL + 12) + 12


def test_maps_that_are_not_finite_are_drawn_as_nothing(picture: Image.Image) -> None:
    maps = torch.tensor([[[float("nan"), float("inf")], [1.0, 0.0]]])
    opened(attend.overlay(picture, made(["x"], maps)).png)
