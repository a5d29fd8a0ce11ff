"""BLIP behind the seam writes what it writes without it."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from models.blip.config import Role
from models.captioners.blip import BlipCaptioner, check, decoding
from models.captioners.config import BlipCaptionerConfig
from models.checkpoints.locate import CheckpointError
from models.roles import captioner as role
from tests.support.tiny_guests import pictures

KEYS = [f"shard/{number}" for number in range(6)]


def test_captions_are_the_roles_own(folders: Mapping[Role, Path]) -> None:
    config = BlipCaptionerConfig(model=str(folders["captioner"]), candidates=2, prompt="a ")
    captioner = BlipCaptioner.load(config, seed=4, dtype="fp32", device="cpu")
    batch = [captioner.prepare(picture) for picture in pictures()]
    written = captioner.caption(batch, KEYS, 2)
    own = role.BlipCaptioner.load(
        folders["captioner"], decoding=decoding(config), seed=4, dtype="fp32", device="cpu"
    )
    images = torch.stack([own.preprocess.resize(picture) for picture in pictures()])
    assert written == own.caption(images, KEYS, 2) == captioner.caption(images, KEYS, 2)
    assert {prepared.held_bytes for prepared in batch} == {images[0].nbytes}
    assert captioner.digest == own.digest == check(config).digest
    assert captioner.caption([], [], 1) == []


def test_a_prompt_that_leaves_no_room(folders: Mapping[Role, Path]) -> None:
    config = BlipCaptionerConfig(model=str(folders["captioner"]), max_tokens=600)
    with pytest.raises(ValueError, match="lower max_tokens"):
        check(config)
    with pytest.raises(CheckpointError, match="expected a captioner"):
        check(BlipCaptionerConfig(model=str(folders["filter"])))
