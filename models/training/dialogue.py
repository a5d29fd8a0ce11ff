"""A dialogue about an image as one text, for training and for ranking alike (BLIP §5.5):

[ENC] caption [SEP] question 1 answer 1 [SEP] … question 2 answer 2 [SEP] question [SEP]

where an answer to the last question may stand after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from models.blip.framing import FRAME, TokenBatch
from models.blip.networks import MatchNetwork, linear_fp32
from models.blip.tokenizer import WordPiece, normalise, normalise_question
from models.training import losses
from models.training.contrast import in_fp32
from models.training.workers import ALONE, Workers


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A caption, the questions and answers so far, oldest first, and the question to answer."""

    caption: str
    history: Sequence[tuple[str, str]]
    question: str


def compose(words: WordPiece, max_tokens: int, dialogue: Dialogue) -> list[int]:
    """Write a dialogue as ids between the first token and the last [SEP].

    The oldest rounds fall away, whole, until it fits `max_tokens`, special ones included; then the
    caption is cut, then the question.
    """
    return compose_answered(words, max_tokens, dialogue, [""])[0]


def compose_answered(
    words: WordPiece, max_tokens: int, dialogue: Dialogue, answers: Sequence[str]
) -> list[list[int]]:
    """Write a dialogue as often as there are answers, each with one after the question.

    See `compose`; a question with its answer is cut last, and from its end.
    """
    texts = [normalise(dialogue.caption), normalise_question(dialogue.question)]
    for question, answer in dialogue.history:
        texts.append(f"{normalise_question(question)} {normalise(answer)}")
    caption, question_ids, *rounds = words.encode(texts)
    return [
        _fit(caption, rounds, [*question_ids, *answer], words.sep_id, max_tokens - FRAME)
        for answer in words.encode([normalise(answer) for answer in answers])
    ]


def _fit(
    caption: list[int], rounds: Sequence[list[int]], last: list[int], sep_id: int, room: int
) -> list[int]:
    last = last[:room]
    room -= len(last)
    opening = [*caption[: max(room - 1, 0)], sep_id][:room]  # empty where nothing is left
    room -= len(opening)
    kept: list[int] = []
    for ids in reversed(rounds):
        if len(ids) + 1 + len(kept) > room:
            break
        kept = [*ids, sep_id, *kept]
    return [*opening, *kept, *last]


def match_loss(
    network: MatchNetwork,
    answered: TokenBatch,
    images: Tensor,
    weights: Tensor,
    workers: Workers = ALONE,
) -> tuple[Tensor, Tensor]:
    """Compute ITM of dialogues with answers, and the share whose true answer scores highest.

    `answered` (B * K, T): K of each image (B, P, V) side by side, the true answer first.
    `weights` (B, K): 0 for what is not counted.
    """
    hidden = network.text_encoder.encode(answered.ids, answered.mask, images)[:, 0].float()
    labels = weights.new_zeros(weights.shape).long()
    labels[:, 0] = 1
    with in_fp32(hidden):
        logits = linear_fp32(network.itm_head, hidden)
        flat = weights.flatten()
        loss = losses.matching(logits, labels.flatten(), flat, workers.mean(flat.sum()))
    scores = (logits[:, 1] - logits[:, 0]).detach().view_as(weights)
    others = scores[:, 1:].masked_fill(weights[:, 1:] == 0, -float("inf")).amax(1)
    return loss, (scores[:, 0] > others).float().mean()
