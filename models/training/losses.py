"""The losses of BLIP as pure functions of tensors.

Shapes: B rows, M candidates of a row, E projection width, N pairs, T tokens, C vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

LABEL_SMOOTHING = 0.1  # BLIP §3.2, LM


def similarities(features: Tensor, candidates: Tensor, temperature: Tensor) -> Tensor:
    """Compare unit vectors (B, E) with (M, E): s / τ of ALBEF §3.2, eq. 1, in fp32 (B, M)."""
    return features.float() @ candidates.float().T / temperature.float()


def own_pairs(rows: int, pairs: int, rank: int, device: torch.device) -> Tensor:
    """Mark each row's own pair among those of all workers, in order: (rows, pairs), bool.

    It is the only match in pre-training (ALBEF §3.2, y of eq. 2).
    """
    places = torch.arange(pairs, device=device)
    return places == rank * rows + torch.arange(rows, device=device)[:, None]


def same_image(ids: Tensor, others: Tensor) -> Tensor:
    """Targets of finetuning: all candidates of a row's image are matches, in equal shares.

    `ids` (B,) and `others` (M,) are image ids, and `others` holds each of `ids`. An image has
    several captions (BLIP §5.1), so a text of the same image is no negative.
    """
    same = ids[:, None] == others[None, :]
    return same / same.sum(1, keepdim=True)


def soften(targets: Tensor, momentum: Tensor, alpha: float, valid: Tensor | None = None) -> Tensor:
    """Mix targets (B, M) with what the momentum model finds alike: ALBEF §3.3, eq. 6 (BLIP §3.2).

    The paper adds a divergence instead, which differs by a constant: the gradients are equal.
    `momentum` (B, M): similarities of the momentum features. `valid` (M,) or (B, M): candidates
    that count.
    """
    if valid is not None:
        momentum = momentum.masked_fill(~valid, -torch.inf)
    return alpha * momentum.softmax(1) + (1 - alpha) * targets


def contrastive(logits: Tensor, targets: Tensor, valid: Tensor | None = None) -> Tensor:
    """ITC in one direction: cross-entropy of (B, M) with soft targets (ALBEF §3.2, eq. 2).

    `valid` (M,) or (B, M) is True on candidates that count; the others are as if not there.
    """
    if valid is None:
        return -(logits.log_softmax(1) * targets).sum(1).mean()
    logs = logits.masked_fill(~valid, -torch.inf).log_softmax(1)
    return -(logs.masked_fill(~valid, 0) * targets).sum(1).mean()  # -inf times 0 is NaN


def matching(
    logits: Tensor, labels: Tensor, weights: Tensor, count: Tensor | None = None
) -> Tensor:
    """ITM: cross-entropy of (N, 2), no match and match (BLIP §3.2; ALBEF §3.2, eq. 4).

    A pair of weight 0 is left out: the mean is over the others, of which there is at least one.
    `count`: what to divide by instead of the sum of the weights, with several workers.
    """
    losses = F.cross_entropy(logits.float(), labels, reduction="none")
    return (losses * weights).sum() / (weights.sum() if count is None else count)


def language(
    logits: Tensor,
    labels: Tensor,
    smoothing: float = LABEL_SMOOTHING,
    count: Tensor | None = None,
) -> Tensor:
    """LM: cross-entropy of the next word with label smoothing (BLIP §3.2; transformers has none).

    `logits` (N, C) and `labels` (N,) are of the places that count, each predicting the word after
    it; the mean is over these places of the whole batch, so a longer text weighs more. Without
    any place the loss is 0. `count`: what to divide by instead of N, with several workers.
    """
    total = F.cross_entropy(logits.float(), labels, label_smoothing=smoothing, reduction="sum")
    return total / (max(len(labels), 1) if count is None else count.clamp(min=1))
