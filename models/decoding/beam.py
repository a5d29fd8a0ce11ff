"""Beam search, under the length rule of the checkpoint.

transformers divides a beam's score by the number of generated tokens with the end token; the
original BLIP (transformers 4.15) by the length of the whole text with the prompt and without the
end token. With a prompt of several tokens the winners can differ.

Shapes: B images, K beams, N = B * K, C vocabulary, T tokens so far.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.blip.config import LengthRule
from models.blip.text import TextDecoder
from models.decoding.config import Decoding
from models.decoding.draft import DecoderStart, constrain
from models.decoding.generate import GeneratedTexts, start_texts


@dataclass(frozen=True, slots=True)
class BeamCandidate:
    """One way to go on: beam `beam` of its image, then `token`."""

    score: float  # sum of the log-probabilities that the search compares
    logprob: float  # the same under the model alone
    beam: int
    token: int


@dataclass(slots=True)
class Hypothesis:
    """A finished text."""

    score: float
    text: GeneratedTexts


@dataclass(slots=True)
class BeamSearch:
    """The beam search of one image."""

    decoding: Decoding
    rule: LengthRule
    start: DecoderStart
    finished: list[Hypothesis] = field(default_factory=list)
    done: bool = False

    def advance(
        self, candidates: list[BeamCandidate], beams: list[list[int]]
    ) -> list[BeamCandidate]:
        """Finish what ends, and choose the K candidates that go on; `beams` are ids so far.

        `candidates` are the 2 K best, best first: so many that K go on even if K end.
        """
        step, most = len(beams[0]), self.decoding.beams
        going: list[BeamCandidate] = []
        for rank, candidate in enumerate(candidates):
            if candidate.token == self.start.end_id:
                if rank < most:  # an end among the worse half is dropped, as in transformers
                    self._finish(candidate, beams[candidate.beam], ended=True)
            elif len(going) < most:
                going.append(candidate)
        self.done = self.done or self._settled(candidates, going, step)
        if step + 1 == self.decoding.max_tokens:
            for candidate in going:  # what has not ended counts as it is
                self._finish(candidate, [*beams[candidate.beam], candidate.token], ended=False)
            self.done = True
        return going

    def _finish(self, candidate: BeamCandidate, ids: list[int], *, ended: bool) -> None:
        if self.done:
            return
        generated = len(ids) + ended
        # sums of log-probabilities fall with each token: without a division short texts would win
        length = generated if self.rule == "generated" else len(self.start.prompt) + len(ids)
        text = GeneratedTexts(ids, candidate.logprob / generated, ended)
        self.finished.append(Hypothesis(candidate.score / length, text))
        self.finished.sort(key=lambda hypothesis: -hypothesis.score)
        del self.finished[self.decoding.beams :]

    def _settled(
        self, candidates: list[BeamCandidate], going: list[BeamCandidate], step: int
    ) -> bool:
        """Check whether the K finished texts are final: no running beam seems able to beat them.

        It is a guess, since a longer text may still gain by its division; transformers stops so.
        """
        if len(self.finished) < self.decoding.beams:
            return False
        # how a running beam would rank if it ended now; each rule takes its own beam and length
        if self.rule == "generated":
            hope = going[0].score / (step + 1)
        else:
            hope = candidates[0].score / (len(self.start.prompt) + step)
        return self.finished[-1].score >= hope


def beam_search(
    decoder: TextDecoder, images: Tensor, start: DecoderStart, decoding: Decoding, rule: LengthRule
) -> list[list[GeneratedTexts]]:
    """Find the best texts of each image, best first, at most K each."""
    width, batch = decoding.beams, len(images)
    searches = [BeamSearch(decoding, rule, start) for _ in range(batch)]
    cache, logits = start_texts(decoder, images, start, decoding.max_tokens)
    cache.expand(width)
    logits = logits.repeat_interleave(width, dim=0)
    ids = torch.tensor(start.prompt, device=images.device).expand(len(logits), -1)  # (N, T)
    scores = torch.full((batch, width), -1e9, device=images.device)
    scores[:, 0] = 0  # at first all beams of an image are equal: only one of them counts
    logprobs = torch.zeros_like(scores)
    for step in range(decoding.max_tokens):
        options = _options(logits, ids, scores, logprobs, step, start, decoding)
        chosen = _advance(searches, options, ids[:, len(start.prompt) :].tolist(), width)
        if all(search.done for search in searches):
            break
        first = [width * image for image in range(batch) for _ in range(width)]
        rows = torch.tensor([c.beam for c in chosen], device=ids.device)
        rows += torch.tensor(first, device=ids.device)
        tokens = torch.tensor([[c.token] for c in chosen], device=ids.device)
        scores = torch.tensor([c.score for c in chosen], device=ids.device).view(batch, width)
        logprobs = torch.tensor([c.logprob for c in chosen], device=ids.device).view(batch, width)
        ids = torch.cat([ids[rows], tokens], dim=1)
        cache.reorder(rows)
        logits = decoder.next_logits(tokens, cache)
    return [[hypothesis.text for hypothesis in search.finished] for search in searches]


def _options(
    logits: Tensor,
    ids: Tensor,
    scores: Tensor,
    logprobs: Tensor,
    step: int,
    start: DecoderStart,
    decoding: Decoding,
) -> list[list[BeamCandidate]]:
    """List the 2 K best ways to go on of each image, best first."""
    raw = logits.log_softmax(-1)  # (N, C)
    allowed = constrain(raw, ids, step, start.end_id, decoding)
    totals = (allowed + scores.flatten()[:, None]).view(len(scores), -1)  # (B, K * C)
    best, places = totals.topk(2 * decoding.beams, dim=-1)
    beams, tokens = places // raw.shape[-1], places % raw.shape[-1]
    gains = raw.view(len(scores), -1).gather(-1, places)
    sums = logprobs.gather(-1, beams) + gains
    columns = (best.tolist(), sums.tolist(), beams.tolist(), tokens.tolist())
    return [
        [BeamCandidate(*fields) for fields in zip(*image, strict=True)]
        for image in zip(*columns, strict=True)
    ]


def _advance(
    searches: list[BeamSearch],
    options: list[list[BeamCandidate]],
    written: list[list[int]],
    width: int,
) -> list[BeamCandidate]:
    """Move every search on; a finished one repeats its candidates, which nobody reads."""
    chosen = []
    for number, (search, candidates) in enumerate(zip(searches, options, strict=True)):
        beams = written[number * width : (number + 1) * width]
        chosen += search.advance(candidates, beams)
    return chosen
