"""BLIP's filter as a scorer: the numbers of the filter itself, under their names."""

import torch
from PIL import Image

from models.checkpoints import locate
from models.roles.filter import Filter
from pipeline.views.score_blip import SCORES, BlipScorer


def test_it_gives_the_filter_s_numbers() -> None:
    role = Filter.load(locate.SHIPPED["tiny-filter"], dtype="fp32", device="cpu")
    scorer = BlipScorer(role)
    assert (scorer.digest, scorer.scores) == (role.digest, SCORES)
    pictures = [Image.new("RGB", (70, 40), colour) for colour in ("red", "blue")]
    texts = [["a red square", "a dog"], ["a blue circle"]]
    prepared = [scorer.prepare(picture) for picture in pictures]
    expected = role.score(torch.stack([role.preprocess.resize(p) for p in pictures]), texts)
    assert [[score.values for score in row] for row in scorer.score(prepared, texts)] == [
        [(score.itm, score.itm_logit, score.itc) for score in row] for row in expected
    ]
