"""Visual dialogue: rank candidate answers to the last question of a dialogue about an image.

There are two ways. By match (BLIP §5.5), the text encoder reads the dialogue with a candidate after
it and the image in sight, and its ITM head says whether that is true; so any filter ranks. By
likelihood, the question encoder of a VQA model reads the dialogue, and a candidate is as good as it
is likely under the answer decoder; so any VQA checkpoint ranks. The paper's code was never
released: its encoder looks at the caption's states beside the image's, ours reads it as text.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self, Unpack

import torch
from torch import Tensor

from models.blip.networks import MatchNetwork
from models.blip.preprocess import Preprocess
from models.checkpoints import checkpoint
from models.checkpoints.description import describe
from models.checkpoints.locate import CheckpointError
from models.decoding import answering
from models.decoding.answering import Questions
from models.roles.role import LoadedModel, LoadOptions
from models.roles.vqa import VqaModel
from models.training.dialogue import Dialogue, compose, compose_answered

Scores = Callable[[int, Sequence[str]], list[float]]
"""Scores candidates of the dialogue of a number."""

TEXTS_AT_ONCE = 128  # candidates, each a whole dialogue


@dataclass(frozen=True, slots=True)
class RankedCandidate:
    """A candidate answer, at `index` of its list.

    `score`: by match the logit of a match minus that of none, by likelihood the label-smoothed
    log-likelihood.
    """

    text: str
    index: int
    score: float


class DialogueRanker(ABC):
    """What ranks; a score does not depend on the other dialogues and candidates."""

    digest: str
    preprocess: Preprocess

    @torch.inference_mode()
    def rank(
        self,
        images: Tensor,
        dialogues: Sequence[Dialogue],
        candidates: Sequence[Sequence[str]],
        about: Sequence[int] | None = None,
    ) -> list[list[RankedCandidate]]:
        """Rank the candidates of each dialogue, best first.

        `images`: uint8 (B, 3, H, W), resized by `preprocess`, one for each dialogue; or fewer, and
        `about` says which is whose.
        """
        if not dialogues:
            return []
        rows = range(len(dialogues)) if about is None else about
        score = self._read(images, dialogues, rows)
        numbers = range(len(dialogues))
        return [
            _rank(texts, score(number, texts)) if texts else []
            for number, texts in zip(numbers, candidates, strict=True)
        ]

    @abstractmethod
    def _read(self, images: Tensor, dialogues: Sequence[Dialogue], rows: Sequence[int]) -> Scores:
        """Read dialogues, each about the image of its row, once for all of its candidates."""


def load_ranker(
    folder: str | Path, *, max_tokens: int | None = None, **options: Unpack[LoadOptions]
) -> DialogueRanker:
    """Load what a folder holds: a filter, which ranks by match, or a VQA model, by likelihood.

    `max_tokens` is of a dialogue, with its special tokens; without it, a dialogue may fill all
    positions of the network. CheckpointError for a folder of another role.
    """
    role = describe(Path(folder)).role
    if role not in ("filter", "vqa"):
        raise CheckpointError(
            f"{folder}: a filter ranks answers by match, a vqa model by likelihood; found {role}"
        )
    kind = LikelihoodRanker if role == "vqa" else MatchRanker
    return kind.load(folder, max_tokens=max_tokens, **options)


class MatchRanker(LoadedModel[MatchNetwork], DialogueRanker):
    """A loaded filter that ranks answers by whether the dialogue with them is true."""

    network_types = (MatchNetwork,)

    @classmethod
    def load(
        cls, folder: str | Path, *, max_tokens: int | None = None, **options: Unpack[LoadOptions]
    ) -> Self:
        """Load a filter; see `load_ranker`."""
        return cls(checkpoint.load(folder, "filter", **options), max_tokens)

    def _read(self, images: Tensor, dialogues: Sequence[Dialogue], rows: Sequence[int]) -> Scores:
        states = self.image_states(images)
        return lambda number, texts: self._score(
            states[rows[number], None], dialogues[number], texts
        )

    def _score(self, states: Tensor, dialogue: Dialogue, texts: Sequence[str]) -> list[float]:
        composed = compose_answered(self.tokenizer, self.max_tokens, dialogue, texts)
        scores: list[float] = []
        for start in range(0, len(composed), TEXTS_AT_ONCE):
            framed = self.frame(composed[start : start + TEXTS_AT_ONCE], self.first_id)
            logits = self.network.match_logits(framed.ids, framed.mask, states, None)
            scores += (logits[:, 1] - logits[:, 0]).tolist()
        return scores


class LikelihoodRanker(DialogueRanker):
    """A loaded VQA model that ranks answers by how likely it is to give them."""

    def __init__(self, answerer: VqaModel) -> None:
        """Rank by a VQA model, whose limit of tokens is that of a whole dialogue."""
        self.digest, self.preprocess = answerer.digest, answerer.preprocess
        self._answerer = answerer

    @classmethod
    def load(
        cls, folder: str | Path, *, max_tokens: int | None = None, **options: Unpack[LoadOptions]
    ) -> Self:
        """Load a VQA checkpoint; see `load_ranker`."""
        return cls(VqaModel.load(folder, max_tokens=max_tokens, **options))

    def compose(self, dialogue: Dialogue) -> list[int]:
        """Write a dialogue as ids between the first token and the last [SEP]."""
        return compose(self._answerer.tokenizer, self._answerer.max_tokens, dialogue)

    def _read(self, images: Tensor, dialogues: Sequence[Dialogue], rows: Sequence[int]) -> Scores:
        pieces = [self.compose(dialogue) for dialogue in dialogues]
        states = self._answerer.image_states(images)[list(rows)]
        return partial(self._score, self._answerer.encode_questions(pieces, states))

    def _score(self, questions: Questions, number: int, texts: Sequence[str]) -> list[float]:
        framed = self._answerer.frame_answers(texts)
        return answering.score(self._answerer.network, questions, number, framed).tolist()


def _rank(texts: Sequence[str], scores: Sequence[float]) -> list[RankedCandidate]:
    ranked = [RankedCandidate(text, n, scores[n]) for n, text in enumerate(texts)]
    return sorted(ranked, key=lambda candidate: -candidate.score)
