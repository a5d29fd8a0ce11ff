"""The seam: what writes texts for pictures, whichever model is behind it.

A picture is prepared once, in a decode thread, in whatever form the model takes; batches of what
was prepared are captioned on the model's device, or by a server elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from models.guests.picture import Prepared, TakesPixels

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from models.captioners.config import (
        BlipCaptionerConfig,
        EndpointCaptionerConfig,
        TransformersCaptionerConfig,
    )


class Written(Protocol):
    """A text that a model wrote; see `Caption`."""

    @property
    def text(self) -> str:
        """What it wrote, without the prompt."""

    @property
    def logprob(self) -> float | None:
        """The mean log-probability per generated token."""

    @property
    def truncated(self) -> bool | None:
        """Whether the token limit came before the end."""


@dataclass(frozen=True, slots=True)
class Caption:
    """A text that a model wrote; what it does not tell is None.

    `text` has no prompt. `logprob` is the mean log-probability per generated token, the end token
    included. `tokens` counts the text's tokens without prompt and end token. `truncated`: the token
    limit came before the end.
    """

    text: str
    logprob: float | None = None
    tokens: int | None = None
    truncated: bool | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A picture that a captioner would not take, and why; others of its batch have captions."""

    detail: str


@dataclass(frozen=True, slots=True)
class CaptionerInfo:
    """What is known of a captioner before its weights are in memory.

    `config` leads to the same weights on any machine. `parameters` are those that this process must
    hold. `reproducible`: equal arguments give equal texts. `about` is for the run's record.
    """

    digest: str
    config: BlipCaptionerConfig | TransformersCaptionerConfig | EndpointCaptionerConfig
    parameters: int = 0
    reproducible: bool = True
    about: Mapping[str, Any] = field(default_factory=dict)


class Captioner(Protocol):
    """What writes captions.

    `digest` covers all that changes its output. Models with equal `prepare_key` prepare pictures
    alike, so that one preparation serves both.
    """

    digest: str
    prepare_key: str

    def prepare(self, picture: Image.Image) -> Prepared:
        """Make a picture of any size and shape ready; several threads may ask at once."""
        ...

    def caption(
        self, batch: Sequence[Prepared], keys: Sequence[str], count: int
    ) -> Sequence[Sequence[Written] | Refusal]:
        """Write `count` captions for each prepared picture; keys seed the draws."""
        ...


class PixelCaptioner(TakesPixels, Protocol):
    """A captioner of pictures of one size."""

    digest: str

    def caption(
        self, images: Tensor, keys: Sequence[str], count: int
    ) -> Sequence[Sequence[Written] | Refusal]:
        """Write `count` captions for each of uint8 images (B, 3, H, W); keys seed the draws."""
        ...
