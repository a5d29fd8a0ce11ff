"""The seam: what writes texts for pictures, whichever model is behind it.

A picture is prepared once, in a decode thread, in whatever form the model takes; batches of what
was prepared are captioned on the model's device, or by a server elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from models.guests.picture import Prepared


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

    `local`: it computes in this process, on the device of the run. `reproducible`: equal arguments
    give equal texts.
    """

    digest: str
    local: bool = True
    reproducible: bool = True


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
    ) -> Sequence[Sequence[Caption] | Refusal]:
        """Write `count` captions for each prepared picture; keys seed the draws."""
        ...
