"""From image states to token ids: greedy and nucleus decoding, and what beam search shares.

`min_tokens` and `max_tokens` count generated tokens: the prompt does not count, the end token
counts for `max_tokens` and may not come before `min_tokens` others (BLIP's `min_length` and
`max_length` minus the prompt's length).

Shapes: B images, K texts for each, N = B * K, C vocabulary, T tokens so far.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.blip.text import Cache, TextDecoder
from models.decoding import sampling
from models.decoding.config import Decoding


@dataclass(frozen=True, slots=True)
class GeneratedTexts:
    """One text as ids, without prompt and end token.

    `logprob` is the mean log-probability of the generated tokens under the model, the end token
    included; `ended` is False where the text was cut at `max_tokens`.
    """

    ids: list[int]
    logprob: float
    ended: bool


@dataclass(frozen=True, slots=True)
class DecoderStart:
    """What all texts begin with, and the ids that end and fill them."""

    prompt: list[int]
    end_id: int
    pad_id: int


Pick = Callable[[Tensor, int], Tensor]


def start_texts(
    decoder: TextDecoder, images: Tensor, start: DecoderStart, room: int
) -> tuple[Cache, Tensor]:
    """Read the prompt once per image: the cache, and the fp32 logits (B, C) of what follows."""
    prompt = torch.tensor(start.prompt, device=images.device).expand(len(images), -1)
    cache = decoder.bert.open_cache(images, len(start.prompt) + room)
    return cache, decoder.next_logits(prompt, cache)


def constrain(scores: Tensor, ids: Tensor, step: int, end_id: int, decoding: Decoding) -> Tensor:
    """Apply the repetition penalty for the ids (N, T) so far, and forbid an early end."""
    if decoding.repetition_penalty != 1:
        # a logit above 0 is divided and one below is multiplied: both fall (CTRL, arXiv 1909.05858)
        seen = scores.gather(-1, ids)
        factor = decoding.repetition_penalty
        scores = scores.scatter(-1, ids, torch.where(seen < 0, seen * factor, seen / factor))
    if step < decoding.min_tokens:
        scores = scores.clone()
        scores[:, end_id] = -torch.inf
    return scores


def greedy(
    decoder: TextDecoder, images: Tensor, start: DecoderStart, decoding: Decoding
) -> list[GeneratedTexts]:
    """Take the most probable token at each step: B texts."""
    return _write(decoder, images, start, decoding, 1, lambda scores, _: scores.argmax(-1))


def nucleus(
    decoder: TextDecoder,
    images: Tensor,
    start: DecoderStart,
    decoding: Decoding,
    seeds: Sequence[int],
) -> list[GeneratedTexts]:
    """Sample one text for each of N = B * K seeds, the texts of an image next to each other."""

    def pick(scores: Tensor, step: int) -> Tensor:
        probabilities = sampling.keep_top(scores, decoding.top_k).softmax(-1)
        race = sampling.exponentials(seeds, step, scores.shape[-1], scores.device)
        return sampling.nucleus(probabilities, race, decoding.top_p)

    return _write(decoder, images, start, decoding, len(seeds) // len(images), pick)


def _write(
    decoder: TextDecoder,
    images: Tensor,
    start: DecoderStart,
    decoding: Decoding,
    copies: int,
    pick: Pick,
) -> list[GeneratedTexts]:
    """Write N = B * copies texts token by token until all have ended."""
    cache, logits = start_texts(decoder, images, start, decoding.max_tokens)
    cache.expand(copies)  # the prompt was read once for all copies
    logits = logits.repeat_interleave(copies, dim=0)  # (N, C)
    shape = (len(logits), len(start.prompt) + decoding.max_tokens)
    ids = torch.full(shape, start.pad_id, device=images.device)
    ids[:, : len(start.prompt)] = torch.tensor(start.prompt, device=images.device)
    total = logits.new_zeros(len(logits))
    ended = torch.zeros_like(total, dtype=torch.bool)
    for step in range(decoding.max_tokens):
        end = len(start.prompt) + step
        tokens = pick(constrain(logits, ids[:, :end], step, start.end_id, decoding), step)
        gain = logits.log_softmax(-1).gather(-1, tokens[:, None]).squeeze(-1)
        total = torch.where(ended, total, total + gain)  # what follows an end counts for nothing
        ids[:, end] = torch.where(ended, start.pad_id, tokens)
        ended = ended | (tokens == start.end_id)
        if step + 1 == decoding.max_tokens or ended.all():
            break
        logits = decoder.next_logits(ids[:, end : end + 1], cache)
    return _collect(ids[:, len(start.prompt) :], total, start.end_id)


def _collect(ids: Tensor, total: Tensor, end_id: int) -> list[GeneratedTexts]:
    """Cut rows (N, max_tokens) at their end tokens."""
    texts = []
    for row, logprob in zip(ids.tolist(), total.tolist(), strict=True):
        ended = end_id in row
        length = row.index(end_id) if ended else len(row)
        texts.append(GeneratedTexts(row[:length], logprob / (length + ended), ended))
    return texts
