"""What the models say about pictures is what their roles say, however many are asked at once."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from models.blip.config import blip_config
from models.blip.tokenizer import train
from models.checkpoints import checkpoint
from models.decoding.config import Decoding
from models.roles.captioner import BlipCaptioner
from models.roles.filter import Filter
from models.roles.nlvr import NlvrModel
from models.roles.vqa import VqaModel
from pipeline.media.pictures import UserPicture
from pipeline.predict import image as use
from pipeline.toy.world import corpus

TEXTS = ["a red ring", "a dog", "a blue star above a red ring"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small random checkpoint of each role."""
    words = train(corpus(), 120)
    shape = blip_config("tiny", **words.config_fields, image_size=32)
    shape.vision_config.num_hidden_layers = shape.text_config.num_hidden_layers = 1
    found = {}
    roles: tuple[Any, ...] = ("captioner", "filter", "vqa", "nlvr")
    for role in roles:
        found[role] = tmp_path_factory.mktemp(role) / "model"
        checkpoint.create(found[role], role, shape, words, seed=4)
    return found


@pytest.fixture
def images(noise: Any) -> list[Image.Image]:
    return [noise(40, 30, seed=n) for n in range(5)]


def test_captions_do_not_depend_on_the_batch_or_on_what_cannot_be_read(
    folders: dict[str, Path], images: list[Image.Image]
) -> None:
    decoding = Decoding(method="nucleus", prompt="a ", min_tokens=1, max_tokens=6)
    captioner = BlipCaptioner.load(folders["captioner"], decoding=decoding, dtype="fp32")
    pictures = [UserPicture(str(n), image) for n, image in enumerate(images)]
    broken = UserPicture("broken", None, "image_empty")
    alone = [next(use.caption(captioner, [picture], 2)).captions for picture in pictures]
    among = [*pictures[:2], broken, broken, *pictures[2:]]
    for size in (1, 2, 8):
        found = list(use.caption(captioner, iter(among), 2, batch_size=size))
        assert [each.picture for each in found] == among
        texts = [[one.text for one in each.captions] for each in found]
        expected = [[one.text for one in each] for each in alone]
        assert texts == [*expected[:2], [], [], *expected[2:]]


def test_a_match_is_the_filters_score_and_shares_add_up(
    folders: dict[str, Path], images: list[Image.Image]
) -> None:
    scorer = Filter.load(folders["filter"], dtype="fp32")
    found = use.match(scorer, images[0], TEXTS)
    pixels = scorer.preprocess.resize(images[0])[None]
    for text, one in zip(TEXTS, found, strict=True):
        ((score,),) = scorer.score(pixels, [[text]])
        assert one.text == text
        assert one.itm == pytest.approx(score.itm, abs=1e-5)
        assert one.itc == pytest.approx(score.itc, abs=1e-5)
    assert sum(one.share for one in found) == pytest.approx(1)
    by_cosine = sorted(found, key=lambda one: one.itc)
    assert by_cosine == sorted(found, key=lambda one: one.share)


def test_answers_are_written_or_ranked(folders: dict[str, Path], images: list[Image.Image]) -> None:
    answerer = VqaModel.load(folders["vqa"], dtype="fp32")
    (own,) = use.ask(answerer, images[0], "what is it?")
    pixels = answerer.preprocess.resize(images[0])[None]
    assert own.text == answerer.answer(pixels, ["what is it?"])[0].text
    ranked = use.ask(answerer, images[0], "what is it?", ["a ring", "red", "two"])
    assert {one.text for one in ranked} == {"a ring", "red", "two"}
    assert [one.score for one in ranked] == sorted((o.score for o in ranked), reverse=True)


def test_a_statement_is_about_left_and_right(
    folders: dict[str, Path], images: list[Image.Image]
) -> None:
    reasoner = NlvrModel.load(folders["nlvr"], dtype="fp32")
    found = use.reason(reasoner, images[0], images[1], "both are red")
    pixels = torch.stack([reasoner.preprocess.resize(image) for image in images[:2]])
    expected = reasoner.reason(pixels[:1], pixels[1:], ["both are red"])
    assert [found] == pytest.approx(expected)
    assert found != pytest.approx(use.reason(reasoner, images[1], images[0], "both are red"))
