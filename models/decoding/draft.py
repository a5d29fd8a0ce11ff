"""Texts under way, as tensors that keep their size and their place in memory.

A step changes what is in them, and takes nothing from the host: it can be recorded once, as a CUDA
graph, and played again.

Shapes: B images, K texts for each, N = B * K, L tokens of a whole text with its prompt, C
vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.blip.text import Cache, TextDecoder
from models.decoding import sampling
from models.decoding.config import Decoding


@dataclass(frozen=True, slots=True)
class DecoderStart:
    """What all texts begin with, and the ids that end and fill them."""

    prompt: list[int]
    end_id: int
    pad_id: int


@dataclass(frozen=True, slots=True)
class Rules:
    """How a text goes on; `rounds` of the nucleus, see `sampling.nucleus`."""

    start: DecoderStart
    decoding: Decoding
    rounds: int | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """N texts, those of an image next to each other.

    `ids` (N, L) hold the prompt's first token where nothing is written yet. `last` (N, 1): the
    token that the decoder reads next. `total` (N,): sum of the log-probabilities. `ended` and
    `unsettled` (N,): what has its end, and what could not be drawn in the rounds allowed. `streams`
    (N, steps): names of the random numbers.
    """

    ids: Tensor
    last: Tensor
    total: Tensor
    ended: Tensor
    unsettled: Tensor
    streams: Tensor
    cache: Cache
    copies: int

    @classmethod
    def make(cls, decoder: TextDecoder, images: Tensor, copies: int, rules: Rules) -> "Draft":
        """Make room for `copies` texts of each image (B, P, V)."""
        texts, steps = len(images) * copies, rules.decoding.max_tokens
        length = len(rules.start.prompt) + steps
        return cls(
            images.new_empty(texts, length, dtype=torch.long),
            images.new_empty(texts, 1, dtype=torch.long),
            images.new_empty(texts, dtype=torch.float32),
            images.new_empty(texts, dtype=torch.bool),
            images.new_empty(texts, dtype=torch.bool),
            images.new_zeros(texts, steps, dtype=torch.long),
            decoder.bert.make_cache(images, texts, length),
            copies,
        )

    @property
    def images(self) -> int:
        """Count the images."""
        return len(self.ids) // self.copies

    def first(self, images: int) -> "Draft":
        """Return the first images' part of this: the same memory."""
        rows, cache = images * self.copies, self.cache
        return Draft(
            self.ids[:rows],
            self.last[:rows],
            self.total[:rows],
            self.ended[:rows],
            self.unsettled[:rows],
            self.streams[:rows],
            Cache(cache.texts[:, :rows], cache.images[:, :images], cache.position),
            self.copies,
        )

    def begin(self, start: DecoderStart, images: int = 0, streams: Tensor | None = None) -> None:
        """Begin anew with the prompt's ids; only the texts of the first `images` are wanted."""
        self.ids.fill_(start.prompt[0])
        self.ids[:, : len(start.prompt)] = torch.tensor(start.prompt, device=self.ids.device)
        self.last.fill_(start.pad_id)
        self.total.zero_()
        self.ended.zero_()
        self.ended[images * self.copies :] = True
        self.unsettled.zero_()
        self.cache.texts.zero_()  # what is behind `position` is multiplied by 0, and must be finite
        self.cache.position.fill_(len(start.prompt))
        if streams is not None:
            self.streams[: len(streams)].copy_(streams, non_blocking=True)

    def read_prompt(self, decoder: TextDecoder, images: Tensor, start: DecoderStart) -> Tensor:
        """Read the prompt once for each image (B, P, V): fp32 logits (N, C) of what follows."""
        decoder.bert.see(images, self.cache)
        layers, _, heads, _, width = self.cache.texts.shape
        tokens = len(start.prompt)
        kept = self.cache.texts.new_zeros(layers, len(images), heads, tokens, width)
        once = Cache(kept, self.cache.images, torch.zeros_like(self.cache.position))
        logits = decoder.next_logits(self.ids[:: self.copies, :tokens], once)
        self.cache.texts[:, :, :, :tokens] = kept.repeat_interleave(self.copies, dim=1)
        return logits.repeat_interleave(self.copies, dim=0)

    def move(self, sources: Sequence[int], places: Sequence[int]) -> None:
        """Put images, with their texts, at the places of others."""
        rows, holes = (torch.tensor(x, device=self.ids.device) for x in (sources, places))
        for part in (*self._texts(), *self.cache.texts):
            grid = part.unflatten(0, (-1, self.copies))
            grid.index_copy_(0, holes, grid.index_select(0, rows))
        for layer in self.cache.images:
            layer.index_copy_(0, holes, layer.index_select(0, rows))

    def _texts(self) -> tuple[Tensor, ...]:
        return self.ids, self.last, self.total, self.ended, self.unsettled, self.streams


def constrain(
    scores: Tensor, ids: Tensor, step: int | Tensor, end_id: int, decoding: Decoding
) -> Tensor:
    """Apply the repetition penalty for the ids (N, T) so far, and forbid an early end."""
    if decoding.repetition_penalty != 1:
        # a logit above 0 is divided and one below is multiplied: both fall (CTRL, arXiv 1909.05858)
        seen = scores.gather(-1, ids)
        factor = decoding.repetition_penalty
        scores = scores.scatter(-1, ids, torch.where(seen < 0, seen * factor, seen / factor))
    early = torch.as_tensor(step < decoding.min_tokens, device=scores.device)
    scores = scores.clone()
    scores[:, end_id].masked_fill_(early.view(()), -torch.inf)
    return scores


def choose(draft: Draft, logits: Tensor, rules: Rules) -> None:
    """Choose and write the next token of each text, given fp32 logits (N, C) of what follows."""
    start, decoding = rules.start, rules.decoding
    position = draft.cache.position  # (1,): where the token goes that follows what was read
    step = position - len(start.prompt)
    # what is not written yet repeats the first token, which is seen anyway
    scores = constrain(logits, draft.ids, step, start.end_id, decoding)
    tokens, unsettled = _pick(draft, scores, step, rules)
    gain = logits.log_softmax(-1).gather(-1, tokens[:, None]).squeeze(-1)
    draft.total.add_(gain.masked_fill_(draft.ended, 0))  # what follows an end counts for nothing
    draft.last.copy_(tokens.masked_fill(draft.ended, start.pad_id)[:, None])
    draft.ids.index_copy_(1, position, draft.last)
    if unsettled is not None:
        draft.unsettled.logical_or_(unsettled & ~draft.ended)
    draft.ended.logical_or_(tokens == start.end_id)


def advance(decoder: TextDecoder, draft: Draft, rules: Rules) -> None:
    """Read the last token of each text, and choose what follows."""
    choose(draft, decoder.next_logits(draft.last, draft.cache), rules)


def _pick(draft: Draft, scores: Tensor, step: Tensor, rules: Rules) -> tuple[Tensor, Tensor | None]:
    if rules.decoding.method == "greedy":
        return scores.argmax(-1), None
    probabilities = sampling.keep_top(scores, rules.decoding.top_k).softmax(-1)
    race = sampling.exponentials(draft.streams.index_select(1, step), scores.shape[-1])
    return sampling.nucleus(probabilities, race, rules.decoding.top_p, rules.rounds)
