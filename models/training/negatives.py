"""Hard negatives for ITM: a wrong candidate that looks right is drawn more often (ALBEF §3.2).

All is done in fp32 and on the logarithms of the weights. A temperature near its floor makes nearly
all weights underflow to 0, of which nothing can be drawn; their logarithms stay apart.

Shapes: B rows, M candidates of a row.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.training.workers import ALONE, Workers

FLOOR = 1e-4  # what the original adds to each weight in pre-training


@dataclass(frozen=True, slots=True)
class Negatives:
    """The candidate drawn for each row, `index` (B,), and whether there was any, `valid` (B,).

    Where there was none `index` is 0, and the pair must not count.
    """

    index: Tensor
    valid: Tensor

    @classmethod
    def fixed(cls, index: Tensor) -> "Negatives":
        """Take candidates that were chosen elsewhere."""
        return cls(index, torch.ones_like(index, dtype=torch.bool))


@dataclass(frozen=True, slots=True)
class DrawnNegatives:
    """Each text's wrong image and each image's wrong text, among the pairs (W,) of `workers`.

    `image_weights` and `text_weights` (B, W): logarithms of the weights that they were drawn by.
    """

    images: Negatives
    texts: Negatives
    image_weights: Tensor
    text_weights: Tensor
    workers: Workers


def matched(
    ids: Tensor, others: Tensor, texts: Tensor | None = None, other_texts: Tensor | None = None
) -> Tensor:
    """Mark candidates (B, M) that are no negatives: those of the same image or with the same text.

    `ids` (B,) and `others` (M,) are image ids; `texts` and `other_texts`, hashes of the texts.
    """
    same = ids[:, None] == others[None, :]
    if texts is not None and other_texts is not None:
        same |= texts[:, None] == other_texts[None, :]
    return same


def masked_weights(logits: Tensor, forbidden: Tensor, floor: float = 0) -> Tensor:
    """Weigh candidates (B, M) by their similarity, all but the forbidden ones: logarithms.

    `floor` is added to each weight: where all weights are small, draws are then nearly uniform.
    """
    # the rest is not divided by its new sum: a constant in the logarithms moves no draw
    finite = logits.detach().float().nan_to_num()  # a diverged model must not stop the draw
    weights = finite.log_softmax(1)
    if floor:
        weights = weights.logaddexp(weights.new_tensor(floor).log())
    return weights.masked_fill(forbidden, -torch.inf)


def original_weights(logits: Tensor) -> Tensor:
    """Weigh candidates (B, B) as the original pre-training does: softmax + 1e-4, all but i = j.

    It knows no image ids: other texts of the same image are drawn as negatives.
    """
    weights = logits.detach().float().nan_to_num().softmax(1) + FLOOR
    return weights.log().masked_fill(
        torch.eye(*weights.shape, device=weights.device) > 0, -torch.inf
    )


def draw(weights: Tensor, generator: torch.Generator, workers: Workers = ALONE) -> Negatives:
    """Draw a candidate for each row by the logarithms of the weights (B, M).

    A row whose every candidate is forbidden has no negative: it is left out of the loss, which is
    better than a pair with a wrong label. Workers whose generators are alike draw what one would
    draw for the rows of all.
    """
    # each worker draws the noise of all rows and takes its own: their number changes nothing
    # the largest of weight + Gumbel noise falls on a candidate with the probability of its weight
    rows, columns = weights.shape
    noise = weights.new_empty(workers.size * rows, columns).exponential_(generator=generator)
    noise = noise[workers.rank * rows :][:rows]
    scores = weights - noise.clamp(min=torch.finfo(noise.dtype).tiny).log()
    return Negatives(scores.argmax(1), (weights > -torch.inf).any(1))


def draw_both(
    weights: tuple[Tensor, Tensor],
    generator: torch.Generator,
    workers: Workers,
    fixed: tuple[Tensor, Tensor] | None = None,
) -> DrawnNegatives:
    """Draw by the weights of images and of texts; or take `fixed` indices (B,) of both."""
    if fixed is None:
        images, texts = (draw(part, generator, workers) for part in weights)
    else:
        images, texts = map(Negatives.fixed, fixed)
    return DrawnNegatives(images, texts, *weights, workers)
