"""Visual question answering: write an answer, or rank a list of them (BLIP §5.3).

A video is asked like an image: its frames' states stand one after the other (BLIP §5.6).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, Unpack

import torch
from torch import Tensor

from models.blip import framing
from models.blip.config import QuestionMask
from models.blip.framing import TokenBatch
from models.blip.networks import VqaNetwork
from models.blip.tokenizer import normalise_question
from models.checkpoints import checkpoint
from models.decoding import answering
from models.decoding.answering import Questions
from models.decoding.config import Decoding
from models.roles.captioner import prompt_start
from models.roles.role import LoadedModel, LoadOptions

# at most 10 tokens with [DEC], which `max_tokens` does not count
DECODING = Decoding(method="beam", prompt="", beams=3, min_tokens=0, max_tokens=9)


@dataclass(frozen=True, slots=True)
class GeneratedAnswer:
    """A written answer; `logprob` is the mean per token, `truncated`: it was cut at the limit."""

    text: str
    logprob: float
    truncated: bool


@dataclass(frozen=True, slots=True)
class RankedAnswer:
    """An answer of the list, at `index`.

    `score`: its log-likelihood with smoothed labels; `first`: probability of its first token.
    """

    text: str
    index: int
    score: float
    first: float


class VqaModel(LoadedModel[VqaNetwork]):
    """A loaded VQA model; an answer does not depend on the other questions of its batch."""

    network_types = (VqaNetwork,)

    def __init__(
        self,
        loaded: checkpoint.Checkpoint,
        max_tokens: int | None,
        question_mask: QuestionMask | None = None,
    ) -> None:
        """Prepare a loaded checkpoint; ValueError if the token limit does not fit the network."""
        super().__init__(loaded, max_tokens)
        self._mask = question_mask or self.settings.question_mask

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        max_tokens: int | None = 35,
        question_mask: QuestionMask | None = None,
        **options: Unpack[LoadOptions],
    ) -> Self:
        """Load a VQA checkpoint; `max_tokens` of a question, None for all that the network reads.

        `question_mask` stands in for the setting of the checkpoint: "ignored" lets a written answer
        look at the pads behind its question, as the original and transformers do.
        """
        return cls(checkpoint.load(folder, "vqa", **options), max_tokens, question_mask)

    @torch.inference_mode()
    def answer(
        self,
        images: Tensor,
        questions: Sequence[str],
        decoding: Decoding = DECODING,
        about: Sequence[int] | None = None,
    ) -> list[GeneratedAnswer]:
        """Write an answer to a question about each image (B, 3, H, W) or video (B, F, 3, H, W).

        Several questions may be about one, which is looked at once: `about` says which is whose,
        or B is 1.
        """
        if not questions:
            return []
        start, rule = prompt_start(self.description, decoding), self.settings.length_rule
        encoded = self._encode(images, questions, about)
        answers = answering.write(self.network, encoded, start, decoding, rule, self._mask)
        texts = self.tokenizer.decode([answer.ids for answer in answers])
        return [
            GeneratedAnswer(text, answer.logprob, not answer.ended)
            for text, answer in zip(texts, answers, strict=True)
        ]

    @torch.inference_mode()
    def rank(
        self,
        images: Tensor,
        questions: Sequence[str],
        answers: Sequence[str],
        k: int = 128,
        about: Sequence[int] | None = None,
    ) -> list[list[RankedAnswer]]:
        """Rank, for each question, the k answers that its first token makes likeliest; best first.

        `images` and `about` as for `answer`. k above the number of answers means all of them.
        """
        if not questions or not answers:
            return [[] for _ in questions]
        encoded, framed = self._encode(images, questions, about), self.frame_answers(answers)
        ranking = answering.rank(self.network, encoded, framed, k)
        columns = (ranking.index.tolist(), ranking.score.tolist(), ranking.first.tolist())
        return [
            sorted(
                (
                    RankedAnswer(answers[n], n, score, first)
                    for n, score, first in zip(*row, strict=True)
                ),
                key=lambda ranked: -ranked.score,
            )
            for row in zip(*columns, strict=True)
        ]

    def frame_answers(self, answers: Sequence[str]) -> TokenBatch:
        """Tokenise answers as the decoder reads them: [DEC], the words, [SEP]."""
        words, limit = self.tokenizer, self.description.positions
        return framing.tokenize_batch(
            words.encode(answers), words, words.dec_id, limit, self.device
        )

    def _encode(
        self, images: Tensor, questions: Sequence[str], about: Sequence[int] | None
    ) -> Questions:
        states = self.image_states(images)
        if about is not None:
            states = states[list(about)]
        elif len(states) == 1:
            states = states.expand(len(questions), -1, -1)
        texts = [normalise_question(text) for text in questions]
        return self.encode_questions(self.tokenizer.encode(texts), states)

    def encode_questions(self, pieces: Sequence[Sequence[int]], states: Tensor) -> Questions:
        """Read questions, given as ids, each with the states (Q, P, V) of its image."""
        framed = self.frame(pieces, self.first_id)
        return Questions(self.network.questions(framed.ids, framed.mask, states), framed.mask)
