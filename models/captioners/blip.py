"""BLIP's image-grounded decoder as a captioner."""

from collections.abc import Sequence
from typing import Self

import torch
from PIL import Image

from models.blip.config import DtypeChoice
from models.captioners.captioner import Caption, CaptionerInfo
from models.captioners.config import BlipCaptionerConfig
from models.checkpoints import checkpoint
from models.checkpoints.description import describe
from models.checkpoints.locate import resolve
from models.decoding.config import Decoding
from models.guests.picture import Prepared
from models.roles import captioner as role


def check(config: BlipCaptionerConfig) -> CaptionerInfo:
    """Check a captioner, all of its files; CheckpointError says what is wrong with it."""
    described = describe(resolve(config.model, config.revision), "captioner")
    role.prompt_start(described, decoding(config))
    return CaptionerInfo(checkpoint.info(described).digest)


def decoding(config: BlipCaptionerConfig) -> Decoding:
    """Return the part of a recipe's section that says how to decode."""
    return Decoding(**{name: getattr(config, name) for name in Decoding.model_fields})


class BlipCaptioner:
    """A loaded captioner behind the seam that all captioners share."""

    def __init__(self, loaded: role.BlipCaptioner) -> None:
        self._role, self.digest = loaded, loaded.digest
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
        made = self._role.preprocess.resize(picture.convert("RGB"))
        return Prepared(made, made.nbytes)

    def caption(
        self, batch: Sequence[Prepared], keys: Sequence[str], count: int
    ) -> list[list[Caption]]:
        """Write `count` captions for each prepared picture."""
        if not batch:
            return []
        images = torch.stack([prepared.content for prepared in batch])
        return [
            [Caption(text.text, text.logprob, text.tokens, text.truncated) for text in texts]
            for texts in self._role.caption(images, keys, count)
        ]
