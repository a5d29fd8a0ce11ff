"""Visual question answering: write an answer, or rank a list of them (BLIP §5.3).

A video is asked like an image: its frames' states stand one after the other (BLIP §5.6).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from models.blip import framing
from models.blip.config import TORCH_DTYPES, Dtype, QuestionMask, resolve_dtype
from models.blip.framing import TokenBatch
from models.blip.networks import VqaNetwork
from models.blip.tokenizer import normalise_question
from models.checkpoints import checkpoint
from models.decoding import answering
from models.decoding.answering import Questions
from models.decoding.generate import Decoding
from models.roles.captioner import prompt_start

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


class VqaModel:
    """A loaded VQA model; an answer does not depend on the other questions of its batch."""

    def __init__(
        self,
        loaded: checkpoint.Checkpoint,
        max_tokens: int | None,
        dtype: Dtype,
        question_mask: QuestionMask | None = None,
    ) -> None:
        """Prepare a loaded checkpoint; ValueError if the token limit does not fit the network."""
        assert isinstance(loaded.network, VqaNetwork)
        described, words = loaded.description, loaded.description.tokenizer
        self._positions = described.config.text_config.max_position_embeddings
        self.max_tokens = self._positions if max_tokens is None else max_tokens
        framing.check_max_tokens(self.max_tokens, self._positions, str(described.folder))
        self.digest, self.preprocess = loaded.digest, described.preprocess
        self.network, self.words, self._described = loaded.network, words, described
        self._rule = described.settings.length_rule
        self.dtype = dtype
        self._mask = question_mask or described.settings.question_mask
        with_enc = described.settings.itm_first_token == "enc"
        self.first_id = words.enc_id if with_enc else words.cls_id

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        max_tokens: int | None = 35,
        dtype: Literal["auto", "fp32", "bf16"] = "auto",
        device: str | torch.device = "cpu",
        question_mask: QuestionMask | None = None,
    ) -> "VqaModel":
        """Load a VQA checkpoint; `max_tokens` of a question, None for all that the network reads.

        `question_mask` stands in for the setting of the checkpoint: "ignored" lets a written answer
        look at the pads behind its question, as the original and transformers do.
        """
        resolved = resolve_dtype(dtype, device)
        loaded = checkpoint.load(Path(folder), "vqa", dtype=resolved, device=device)
        return cls(loaded, max_tokens, resolved, question_mask)

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
        start, read = prompt_start(self._described, decoding), self._read(images, questions, about)
        texts = answering.write(self.network, read, start, decoding, self._rule, self._mask)
        written = self.words.decode([text.ids for text in texts])
        return [
            GeneratedAnswer(text, one.logprob, not one.ended)
            for text, one in zip(written, texts, strict=True)
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
        read, framed = self._read(images, questions, about), self.frame_answers(answers)
        ranking = answering.rank(self.network, read, framed, k)
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
        pieces = self.words.encode(answers)
        device = self.network.text_encoder.embeddings.word_embeddings.weight.device
        return framing.tokenize_batch(
            pieces, self.words, self.words.dec_id, self._positions, device
        )

    def _read(
        self, images: Tensor, questions: Sequence[str], about: Sequence[int] | None
    ) -> Questions:
        states = framing.encode_images(
            self.network.vision_model, self.preprocess, images, TORCH_DTYPES[self.dtype]
        )
        if about is not None:
            states = states[list(about)]
        elif len(states) == 1:
            states = states.expand(len(questions), -1, -1)
        pieces = self.words.encode([normalise_question(text) for text in questions])
        framed = framing.tokenize_batch(
            pieces, self.words, self.first_id, self.max_tokens, states.device
        )
        hidden = self.network.questions(framed.ids, framed.mask, states)
        return Questions(hidden, framed.mask)
