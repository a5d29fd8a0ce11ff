"""Caption: every picture gets new texts, written by a captioner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, Self

from pydantic import Field, model_validator

from models.decoding.config import Decoding

if TYPE_CHECKING:  # a recipe is checked without waiting for torch
    from torch import Tensor

    from models.blip.preprocess import Preprocess
    from models.roles.captioner import Caption
    from shards.schema import TextRow


class CaptionConfig(Decoding):
    """Which captioner writes, how many texts for each picture, and how it decodes.

    CapFilt samples with nucleus 0.9 (BLIP, section 4.3); the lengths are those of the authors'
    demo.
    """

    model: str = Field(description="a Hugging Face BLIP folder, or the id of one on the hub")
    revision: str | None = Field(default=None, description="of the hub; the newest if not given")
    candidates: int = Field(default=1, ge=1, le=1000, description="captions per picture")

    @model_validator(mode="after")
    def _enough(self) -> Self:
        most = {"nucleus": self.candidates, "beam": self.beams, "greedy": 1}[self.method]
        if self.candidates > most:
            raise ValueError(
                f"candidates is {self.candidates}, but {self.method} decoding writes at most "
                f"{most} for a picture"
            )
        return self


class Captioner(Protocol):
    """What writes captions: BLIP's decoder here, other models as guests."""

    digest: str
    preprocess: Preprocess

    def caption(
        self, images: Tensor, keys: Sequence[str], count: int
    ) -> Sequence[Sequence[Caption]]:
        """Write `count` captions for each of uint8 images (B, 3, H, W); keys seed the draws."""
        ...


def caption(
    captioner: Captioner, images: Tensor, keys: Sequence[str], count: int
) -> list[list[TextRow]]:
    """Caption a batch; the result is rows of the texts table, numbered from 1 in each sample."""
    return [
        [_row(text_no, written, captioner.digest) for text_no, written in enumerate(captions, 1)]
        for captions in captioner.caption(images, keys, count)
    ]


def _row(text_no: int, written: Caption, author: str) -> TextRow:
    return {
        "text_no": text_no,
        "origin": "synthetic",
        "author": author,
        "text": written.text,
        "logprob": written.logprob,
        "truncated": written.truncated,
    }
