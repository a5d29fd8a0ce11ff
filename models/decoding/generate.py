"""From image states to token ids: greedy and nucleus decoding, and what beam search shares.

`min_tokens` and `max_tokens` count generated tokens: the prompt does not count, the end token
counts for `max_tokens` and may not come before `min_tokens` others (BLIP's `min_length` and
`max_length` minus the prompt's length).

Shapes: B images, K texts for each, N = B * K, P image states, V their width, C vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from models.blip.text import Cache, TextDecoder
from models.decoding import sampling
from models.decoding.config import Decoding
from models.decoding.draft import DecoderStart, Draft, Rules, advance, choose


@dataclass(frozen=True, slots=True)
class GeneratedTexts:
    """One text as ids, without prompt and end token.

    `logprob` is the mean log-probability of the generated tokens under the model, the end token
    included; `ended` is False where the text was cut at `max_tokens`.
    """

    ids: list[int]
    logprob: float
    ended: bool


def start_texts(
    decoder: TextDecoder, images: Tensor, start: DecoderStart, room: int
) -> tuple[Cache, Tensor]:
    """Read the prompt once per image: the cache, and the fp32 logits (B, C) of what follows."""
    prompt = torch.tensor(start.prompt, device=images.device).expand(len(images), -1)
    cache = decoder.bert.open_cache(images, len(start.prompt) + room)
    return cache, decoder.next_logits(prompt, cache)


class Stepper(Protocol):
    """What takes drafts from token to token; `look_every` so many, the host looks what has ended.

    A look costs a GPU the time until the host has answered, and a CPU nothing.
    """

    @property
    def decoder(self) -> TextDecoder:
        """What reads."""

    @property
    def rules(self) -> Rules:
        """How texts go on."""

    @property
    def look_every(self) -> int:
        """Count the steps from look to look."""

    def make(self, images: Tensor, copies: int) -> Draft:
        """Make room for `copies` texts of each image (B, P, V), or of more images."""

    def advance(self, draft: Draft) -> None:
        """Read the last token of each text, and choose what follows."""


@dataclass(frozen=True, slots=True)
class Eager:
    """Runs a step op by op; the words are those of any other stepper."""

    decoder: TextDecoder
    rules: Rules
    look_every: int = 1

    def make(self, images: Tensor, copies: int) -> Draft:
        """Make room for `copies` texts of each image (B, P, V)."""
        return Draft.make(self.decoder, images, copies, self.rules)

    def advance(self, draft: Draft) -> None:
        """Read the last token of each text, and choose what follows."""
        advance(self.decoder, draft, self.rules)


def greedy(
    decoder: TextDecoder, images: Tensor, start: DecoderStart, decoding: Decoding
) -> list[GeneratedTexts]:
    """Take the most probable token at each step: B texts."""
    rules = Rules(start, decoding.model_copy(update={"method": "greedy"}))
    return write_texts(Eager(decoder, rules), images)


def nucleus(
    decoder: TextDecoder,
    images: Tensor,
    start: DecoderStart,
    decoding: Decoding,
    seeds: Sequence[int],
) -> list[GeneratedTexts]:
    """Sample one text for each of N = B * K seeds, the texts of an image next to each other."""
    return write_texts(Eager(decoder, Rules(start, decoding)), images, seeds)


def write_texts(
    stepper: Stepper, images: Tensor, seeds: Sequence[int] | None = None
) -> list[GeneratedTexts]:
    """Write a text for each image (B, P, V), or one for each of N = B * K seeds."""
    rules, copies = stepper.rules, len(seeds) // len(images) if seeds is not None else 1
    streams = sampling.step_streams(seeds, rules.decoding.max_tokens) if seeds is not None else None
    draft = stepper.make(images, copies)
    draft.begin(rules.start, len(images), streams)
    more = draft.images - len(images)
    logits = draft.read_prompt(stepper.decoder, F.pad(images, (0, 0, 0, 0, 0, more)), rules.start)
    choose(draft, logits, rules)
    written = _go_on(stepper, draft)
    if written is None:  # the device could not draw a word in the rounds that it was given
        surely = Eager(stepper.decoder, Rules(rules.start, rules.decoding))
        return write_texts(surely, images, seeds)
    return [text for image in range(len(images)) for text in written[image]]


def _go_on(stepper: Stepper, draft: Draft) -> dict[int, list[GeneratedTexts]] | None:
    """Write a draft to its end: the texts of each image; None where a word could not be drawn."""
    decoding, every = stepper.rules.decoding, stepper.look_every
    image_at = list(range(draft.images))  # which image stands where
    written: dict[int, list[GeneratedTexts]] = {}
    for step in range(1, decoding.max_tokens):
        if step % every == 0 and step > decoding.min_tokens:  # before, none can have ended
            ended = draft.ended.unflatten(0, (-1, draft.copies)).all(1).tolist()
            if all(ended):
                break
            size = bucket(ended.count(False))
            if size < draft.images:
                if bool(draft.unsettled.any()):
                    return None
                written |= zip(image_at, _collect(draft, stepper.rules.start), strict=True)
                draft, image_at = _shrink(draft, image_at, ended, size)
        stepper.advance(draft)
    if bool(draft.unsettled.any()):
        return None
    return written | dict(zip(image_at, _collect(draft, stepper.rules.start), strict=True))


def bucket(count: int) -> int:
    """Round a number of images up to a size that drafts shrink to: a power of two."""
    return 1 << (count - 1).bit_length()


def _shrink(
    draft: Draft, image_at: list[int], ended: list[bool], size: int
) -> tuple[Draft, list[int]]:
    """Go on with so many images, with all that have not ended among them."""
    sources = [place for place in range(size, len(ended)) if not ended[place]]
    holes = [place for place in range(size) if ended[place]][: len(sources)]
    if sources:
        draft.move(sources, holes)
    for source, hole in zip(sources, holes, strict=True):
        image_at[hole] = image_at[source]
    return draft.first(size), image_at[:size]


def _collect(draft: Draft, start: DecoderStart) -> list[list[GeneratedTexts]]:
    """Cut the texts of each image at their end tokens."""
    texts = []
    written = draft.ids[:, len(start.prompt) :]
    for row, logprob in zip(written.tolist(), draft.total.tolist(), strict=True):
        ended = start.end_id in row
        length = row.index(start.end_id) if ended else len(row)
        texts.append(GeneratedTexts(row[:length], logprob / (length + ended), ended))
    return [texts[n : n + draft.copies] for n in range(0, len(texts), draft.copies)]
