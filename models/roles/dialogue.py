"""Visual dialogue: rank candidate answers to the last question of a dialogue about an image.

The question encoder of a VQA model reads a dialogue as one text (`models.dialogue`) with the image
in sight, and every candidate is scored by its likelihood under the answer decoder. So any VQA
checkpoint ranks, and one is finetuned for dialogue by the VQA loss over such texts. The paper (BLIP
§5.5) scores each candidate inside the encoder, with a matching head that no published checkpoint
has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from models import answering, framing
from models.answering import Questions
from models.config import TORCH_DTYPES
from models.dialogue import Dialogue, compose
from models.roles.vqa import Answerer


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate answer, at `index` of its list; `score`: its log-likelihood, labels smoothed."""

    text: str
    index: int
    score: float


class Speaker:
    """A loaded dialogue model; a score does not depend on the other dialogues and candidates."""

    def __init__(self, answerer: Answerer) -> None:
        """Speak through a VQA model, whose limit of tokens is that of a whole dialogue."""
        self.digest, self.preprocess = answerer.digest, answerer.preprocess
        self._answerer = answerer

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        max_tokens: int | None = None,
        dtype: Literal["auto", "fp32", "bf16"] = "auto",
        device: str | torch.device = "cpu",
    ) -> "Speaker":
        """Load a VQA checkpoint; `max_tokens` is of a dialogue, with its special tokens.

        Without it, a dialogue may fill all positions of the network.
        """
        return cls(Answerer.load(folder, max_tokens=max_tokens, dtype=dtype, device=device))

    @torch.inference_mode()
    def rank(
        self,
        images: Tensor,
        dialogues: Sequence[Dialogue],
        candidates: Sequence[Sequence[str]],
        about: Sequence[int] | None = None,
    ) -> list[list[Candidate]]:
        """Rank the candidates of each dialogue, best first.

        `images`: uint8 (B, 3, H, W), resized by `preprocess`, one for each dialogue; or fewer, and
        `about` says which is whose.
        """
        if not dialogues:
            return []
        questions = self._read(images, dialogues, about)
        return [
            self._rank(questions, row, texts) if texts else []
            for row, texts in enumerate(candidates)
        ]

    def compose(self, dialogue: Dialogue) -> list[int]:
        """Write a dialogue as ids between the first token and the last [SEP]."""
        return compose(self._answerer.words, self._answerer.max_tokens, dialogue)

    def _read(
        self, images: Tensor, dialogues: Sequence[Dialogue], about: Sequence[int] | None
    ) -> Questions:
        speaker = self._answerer
        states = framing.look(
            speaker.network.vision_model, self.preprocess, images, TORCH_DTYPES[speaker.dtype]
        )
        states = states if about is None else states[list(about)]
        pieces = [self.compose(dialogue) for dialogue in dialogues]
        framed = framing.frame(
            pieces, speaker.words, speaker.first_id, speaker.max_tokens, states.device
        )
        return Questions(speaker.network.questions(framed.ids, framed.mask, states), framed.mask)

    def _rank(self, questions: Questions, row: int, texts: Sequence[str]) -> list[Candidate]:
        framed = self._answerer.frame_answers(texts)
        scores = answering.score(self._answerer.network, questions, row, framed).tolist()
        found = [Candidate(text, n, scores[n]) for n, text in enumerate(texts)]
        return sorted(found, key=lambda candidate: -candidate.score)
