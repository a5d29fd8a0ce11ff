"""More families of captioners, each with a way of its own: what they write, whatever the batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from models.captioners.captioner import Caption
from models.captioners.config import TransformersCaptionerConfig
from models.captioners.transformers import TransformersCaptioner
from tests.support.more_guests import MORE_CAPTIONERS
from tests.support.tiny_guests import QUESTION, pictures

pytestmark = pytest.mark.nightly
TOKENS = 12
KEYS = [f"shard/{number}" for number in range(6)]
# what their own processors are given; the others want torchvision for videos
OWN_TEXT = {
    "blip2": None,
    "llava_next": f"<s><image> {QUESTION} :",
    "paligemma": "<image>a dog",
    "pix2struct": None,
}


def opened(folder: Path, name: str, **settings: Any) -> TransformersCaptioner:
    config = TransformersCaptionerConfig(
        kind="transformers",
        model=str(folder),
        prompt=MORE_CAPTIONERS[name][1],
        max_tokens=TOKENS,
        **settings,
    )
    return TransformersCaptioner(config, seed=3, dtype="fp32")


def texts(rows: list[list[Caption]]) -> list[list[str]]:
    return [[caption.text for caption in row] for row in rows]


@pytest.mark.parametrize("name", sorted(MORE_CAPTIONERS))
@pytest.mark.parametrize(("method", "count"), [("greedy", 1), ("nucleus", 3), ("beam", 2)])
def test_a_caption_is_the_same_in_whatever_batch(
    name: str, method: str, count: int, guest_folder: Callable[[str], Path]
) -> None:
    captioner = opened(guest_folder(name), name, method=method)
    batch = [captioner.prepare(picture) for picture in pictures()]
    together = texts(captioner.caption(batch, KEYS, count))
    assert len({row[0] for row in together}) >= 5
    for prepared, key, expected in zip(batch, KEYS, together, strict=True):
        assert texts(captioner.caption([prepared], [key], count)) == [expected]


@pytest.mark.parametrize("name", sorted(OWN_TEXT))
def test_greedy_captions_are_transformers_own(
    name: str, guest_folder: Callable[[str], Path]
) -> None:
    folder, text = guest_folder(name), OWN_TEXT[name]
    processor = hf.AutoProcessor.from_pretrained(folder, backend="pil")
    processor.tokenizer.padding_side = "left"
    asked = {} if text is None else {"text": [text] * 6, "padding": True}
    images = pictures() if text is None else [[picture] for picture in pictures()]
    inputs = processor(images=images, return_tensors="pt", **asked)
    network = hf.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    out = network.generate(
        **{key: value for key, value in inputs.items() if key != "labels"},
        max_new_tokens=TOKENS,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
    )
    own = processor.batch_decode(out.sequences[:, -len(out.scores) :], skip_special_tokens=True)
    captioner = opened(folder, name, method="greedy")
    batch = [captioner.prepare(picture) for picture in pictures()]
    assert texts(captioner.caption(batch, KEYS, 1)) == [[each.strip()] for each in own]
