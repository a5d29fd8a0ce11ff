"""Visual dialogue: rank candidate answers to the last question of a dialogue about an image.

There are two ways. By match (BLIP §5.5), the text encoder reads the dialogue with a candidate after
it and the image in sight, and its ITM head says whether that is true; so any filter ranks. By
likelihood, the question encoder of a VQA model reads the dialogue, and a candidate is as good as it
is likely under the answer decoder; so any VQA checkpoint ranks. The paper's code was never
released: its encoder looks at the caption's states beside the image's, ours reads it as text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, Unpack

import torch
from torch import Tensor

from models.blip.networks import MatchNetwork
from models.blip.preprocess import Preprocess
from models.checkpoints import checkpoint
from models.checkpoints.weights import CheckpointError
from models.decoding import answering
from models.decoding.answering import Questions
from models.roles import role as roles
from models.roles.role import LoadedModel, LoadOptions
from models.roles.vqa import VqaModel
from models.training.dialogue import Dialogue, compose, compose_answered

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


class DialogueRanker(Protocol):
    """What ranks; a score does not depend on the other dialogues and candidates."""

    digest: str
    preprocess: Preprocess

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


def load_ranker(
    folder: str | Path, *, max_tokens: int | None = None, **options: Unpack[LoadOptions]
) -> DialogueRanker:
    """Load what a folder holds: a filter, which ranks by match, or a VQA model, by likelihood.

    `max_tokens` is of a dialogue, with its special tokens; without it, a dialogue may fill all
    positions of the network. CheckpointError for a folder of another role.
    """
    role = checkpoint.describe(Path(folder)).role
    if role not in ("filter", "vqa"):
        raise CheckpointError(
            f"{folder}: a filter ranks answers by match, a vqa model by likelihood; found {role}"
        )
    kind = LikelihoodRanker if role == "vqa" else MatchRanker
    return kind.load(folder, max_tokens=max_tokens, **options)


class MatchRanker(LoadedModel[MatchNetwork]):
    """A loaded filter that ranks answers by whether the dialogue with them is true."""

    network_types = (MatchNetwork,)

    @classmethod
    def load(
        cls, folder: str | Path, *, max_tokens: int | None = None, **options: Unpack[LoadOptions]
    ) -> Self:
        """Load a filter; see `load_ranker`."""
        return cls(roles.load(folder, "filter", **options), max_tokens)

    @torch.inference_mode()
    def rank(
        self,
        images: Tensor,
        dialogues: Sequence[Dialogue],
        candidates: Sequence[Sequence[str]],
        about: Sequence[int] | None = None,
    ) -> list[list[RankedCandidate]]:
        """Rank the candidates of each dialogue, best first; see `DialogueRanker.rank`."""
        if not dialogues:
            return []
        states = self.image_states(images)
        rows = range(len(dialogues)) if about is None else about
        return [
            _ranked(texts, self._score(states[row, None], dialogue, texts))
            for row, dialogue, texts in zip(rows, dialogues, candidates, strict=True)
        ]

    def _score(self, states: Tensor, dialogue: Dialogue, texts: Sequence[str]) -> list[float]:
        composed = compose_answered(self.tokenizer, self.max_tokens, dialogue, texts)
        scores: list[float] = []
        for start in range(0, len(composed), TEXTS_AT_ONCE):
            framed = self.frame(composed[start : start + TEXTS_AT_ONCE], self.first_id)
            logits = self.network.match_logits(framed.ids, framed.mask, states, None)
            scores += (logits[:, 1] - logits[:, 0]).tolist()
        return scores


class LikelihoodRanker:
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

    @torch.inference_mode()
    def rank(
        self,
        images: Tensor,
        dialogues: Sequence[Dialogue],
        candidates: Sequence[Sequence[str]],
        about: Sequence[int] | None = None,
    ) -> list[list[RankedCandidate]]:
        """Rank the candidates of each dialogue, best first; see `DialogueRanker.rank`."""
        if not dialogues:
            return []
        states = self._answerer.image_states(images)
        states = states if about is None else states[list(about)]
        pieces = [self.compose(dialogue) for dialogue in dialogues]
        questions = self._answerer.encode_questions(pieces, states)
        return [
            self._rank(questions, row, texts) if texts else []
            for row, texts in enumerate(candidates)
        ]

    def compose(self, dialogue: Dialogue) -> list[int]:
        """Write a dialogue as ids between the first token and the last [SEP]."""
        return compose(self._answerer.tokenizer, self._answerer.max_tokens, dialogue)

    def _rank(self, questions: Questions, row: int, texts: Sequence[str]) -> list[RankedCandidate]:
        framed = self._answerer.frame_answers(texts)
        scores = answering.score(self._answerer.network, questions, row, framed).tolist()
        return _ranked(texts, scores)


def _ranked(texts: Sequence[str], scores: Sequence[float]) -> list[RankedCandidate]:
    ranked = [RankedCandidate(text, n, scores[n]) for n, text in enumerate(texts)]
    return sorted(ranked, key=lambda candidate: -candidate.score)
