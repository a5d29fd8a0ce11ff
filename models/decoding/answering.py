"""Answers to questions: their likelihood, their ranking, and writing them (BLIP §5.3).

Shapes: Q questions, U their tokens, D text width; A answers, T their tokens, C vocabulary.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.blip.config import LengthRule, QuestionMask
from models.blip.framing import TokenBatch
from models.blip.networks import Answering, VqaNetwork
from models.decoding import beam, generate
from models.decoding.config import Decoding
from models.decoding.draft import DecoderStart
from models.decoding.generate import GeneratedTexts

SMOOTHING = 0.1  # of the labels, in training and in ranking (BLIP §4.1)
_IGNORED = -100
_ROWS = 256  # answers that are scored at once: their logits over a vocabulary of 30,524 are large


@dataclass(frozen=True, slots=True)
class Questions:
    """States (Q, U, D) of questions that saw their image; `mask` (Q, U) is False on pads.

    Training and ranking apply the mask, as the original does; transformers' decoder sees the pads
    there too, which is a mask of ones. For writing, see the setting `question_mask`.
    """

    states: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True)
class AnswerRanking:
    """The k likeliest answers of each question by their first token, each (Q, k).

    `index`: place in the list of answers; `score`: minus the label-smoothed negative
    log-likelihood of the whole answer; `first`: probability of its first token.
    """

    index: Tensor
    score: Tensor
    first: Tensor


def sequence_nll(logits: Tensor, answers: TokenBatch, smoothing: float = SMOOTHING) -> Tensor:
    """Sum the negative log-likelihood over each answer's tokens after the first: fp32 (A,).

    `logits` (A, T, C) predict what follows each place; pads do not count.
    """
    labels = answers.ids[:, 1:].masked_fill(~answers.mask[:, 1:], _IGNORED)
    each = F.cross_entropy(
        logits[:, :-1].float().transpose(1, 2),
        labels,
        ignore_index=_IGNORED,
        label_smoothing=smoothing,
        reduction="none",
    )
    return each.sum(-1)


def vqa_loss(
    network: Answering, questions: Questions, answers: TokenBatch, counts: Tensor, weights: Tensor
) -> Tensor:
    """Compute the training loss: sum over answers of weight * NLL, for each image (BLIP §5.3).

    `counts` (Q,): how many of the answers (A, T) belong to each question, in turn; `weights` (A,):
    an answer's share of its question's annotators.
    """
    owner = torch.repeat_interleave(counts)
    logits = network.answer_logits(answers.ids, questions.states[owner], questions.mask[owner])
    return (weights * sequence_nll(logits, answers)).sum() / len(counts)


def first_probabilities(network: VqaNetwork, questions: Questions, dec_id: int) -> Tensor:
    """Predict the first token of an answer: fp32 probabilities (Q, C)."""
    start = torch.full((len(questions.states), 1), dec_id, device=questions.states.device)
    logits = network.answer_logits(start, questions.states, questions.mask)
    return logits[:, 0].float().softmax(-1)


def rank(network: VqaNetwork, questions: Questions, answers: TokenBatch, k: int) -> AnswerRanking:
    """Choose k answers (A, T) for each question by their first token, then score them whole."""
    probabilities = first_probabilities(network, questions, int(answers.ids[0, 0]))
    probabilities = probabilities[:, answers.ids[:, 1]]  # (Q, A)
    # stable: many answers share a first token, and a tie must not depend on the batch
    first, index = probabilities.sort(dim=-1, descending=True, stable=True)
    first, index = first[:, :k], index[:, :k]
    scores = [
        score(network, questions, row, TokenBatch(answers.ids[chosen], answers.mask[chosen]))
        for row, chosen in enumerate(index)
    ]
    return AnswerRanking(index, torch.stack(scores), first)


def score(network: VqaNetwork, questions: Questions, row: int, answers: TokenBatch) -> Tensor:
    """Score answers (A, T) to question number `row`: minus their label-smoothed NLL (A,)."""
    states, mask = questions.states[row, None], questions.mask[row, None]
    parts = zip(answers.ids.split(_ROWS), answers.mask.split(_ROWS), strict=True)
    return torch.cat(
        [
            -sequence_nll(network.answer_logits(ids, states, mask), TokenBatch(ids, visible))
            for ids, visible in parts
        ]
    )


def write(
    network: VqaNetwork,
    questions: Questions,
    start: DecoderStart,
    decoding: Decoding,
    rule: LengthRule,
    mask: QuestionMask,
) -> list[GeneratedTexts]:
    """Write one answer to each question by beam search, or greedily."""
    states, lengths = questions.states, questions.mask.sum(-1)
    answers: dict[int, GeneratedTexts] = {}
    whole = torch.full_like(lengths, states.shape[1])
    # questions of one length go together: the decoder needs no mask where there are no pads
    visible = lengths if mask == "applied" else whole
    for length in visible.unique().tolist():
        rows = (visible == length).nonzero().flatten()
        texts = _write(network, states[rows, :length], start, decoding, rule)
        answers.update(zip(rows.tolist(), texts, strict=True))
    return [answers[row] for row in range(len(states))]


def _write(
    network: VqaNetwork, states: Tensor, start: DecoderStart, decoding: Decoding, rule: LengthRule
) -> list[GeneratedTexts]:
    if decoding.method == "beam":
        ranked = beam.beam_search(network.text_decoder, states, start, decoding, rule)
        return [texts[0] for texts in ranked]
    return generate.greedy(network.text_decoder, states, start, decoding)
