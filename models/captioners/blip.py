"""BLIP's image-grounded decoder as a captioner."""

import dataclasses
from collections.abc import Sequence
from typing import Self

import torch
from PIL import Image
from torch import Tensor

from models.blip.config import DtypeChoice
from models.captioners.captioner import CaptionerInfo, Written
from models.captioners.config import BlipCaptionerConfig
from models.checkpoints import checkpoint
from models.checkpoints.description import describe
from models.checkpoints.locate import pin, resolve
from models.decoding.config import Decoding
from models.guests.picture import Prepared, as_pixels
from models.roles import captioner as role


def check(config: BlipCaptionerConfig) -> CaptionerInfo:
    """Check a captioner, all of its files; CheckpointError says what is wrong with it."""
    pinned = pin(config.model, config.revision)
    described = describe(pinned.folder, "captioner")
    role.prompt_start(described, decoding(config))
    info = checkpoint.info(described)
    there = config.model_copy(update={"model": pinned.name, "revision": pinned.revision})
    return CaptionerInfo(info.digest, there, info.parameters, about=dataclasses.asdict(info))


def decoding(config: BlipCaptionerConfig) -> Decoding:
    """Return the part of a recipe's section that says how to decode."""
    return Decoding(**{name: getattr(config, name) for name in Decoding.model_fields})


class BlipCaptioner:
    """A loaded captioner behind the seam that all captioners share."""

    def __init__(self, loaded: role.BlipCaptioner) -> None:
        self.role, self.digest, self.preprocess = loaded, loaded.digest, loaded.preprocess
        self.prepare_key = repr(loaded.preprocess)

    @classmethod
    def load(
        cls,
        config: BlipCaptionerConfig,
        *,
        seed: int,
        dtype: DtypeChoice,
        device: str | torch.device,
    ) -> Self:
        """Load the captioner that a recipe names."""
        folder = resolve(config.model, config.revision)
        loaded = role.BlipCaptioner.load(
            folder, decoding=decoding(config), seed=seed, dtype=dtype, device=device
        )
        return cls(loaded)

    def prepare(self, picture: Image.Image) -> Prepared:
        """Resize a picture as the captioner takes it."""
        made = self.role.preprocess.resize(picture.convert("RGB"))
        return Prepared(made, made.nbytes)

    def caption(
        self, batch: Sequence[Prepared] | Tensor, keys: Sequence[str], count: int
    ) -> Sequence[Sequence[Written]]:
        """Write `count` captions for each picture: prepared ones, or uint8 (B, 3, H, W)."""
        if not len(batch):
            return []
        return self.role.caption(as_pixels(batch), keys, count)
