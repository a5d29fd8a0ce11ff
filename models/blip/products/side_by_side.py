"""Linear layers that read the same states, computed as one product.

Their weights are laid into one tensor, of which each layer's parameter is then a part: names and
numbers stay as they are, for whoever reads or saves them. One large product keeps a GPU busier than
several small ones, and is one launch.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def lay_together(linears: Sequence[nn.Linear]) -> None:
    """Move the parameters of layers into one tensor, one after the other."""
    rows = [linear.out_features for linear in linears]
    weights = torch.cat([linear.weight.data for linear in linears]).split(rows)
    biases = torch.cat([linear.bias.data for linear in linears]).split(rows)
    for linear, weight, bias in zip(linears, weights, biases, strict=True):
        linear.weight.data, linear.bias.data = weight, bias


def project(linears: Sequence[nn.Linear], states: Tensor) -> list[Tensor]:
    """Apply layers to the same states (..., D), each to (..., its width)."""
    # a gradient has to reach each layer's own parameters
    whole = None if torch.is_grad_enabled() else joined(linears)
    if whole is None:
        return [linear(states) for linear in linears]
    widths = [linear.out_features for linear in linears]
    return list(F.linear(states, *whole).split(widths, dim=-1))


def joined(linears: Sequence[nn.Linear]) -> tuple[Tensor, Tensor] | None:
    """Return weights (sum of widths, D) and biases of layers as one; None if they lie apart.

    They lie apart before `lay_together`, and again when one is moved, cast, packed or replaced.
    """
    if not all(isinstance(linear, nn.Linear) for linear in linears):
        return None
    weight = _joined([linear.weight for linear in linears])
    bias = _joined([linear.bias for linear in linears])
    return None if weight is None or bias is None else (weight, bias)


def _joined(parts: Sequence[Tensor]) -> Tensor | None:
    first = parts[0]
    begin = end = first.data_ptr()
    for part in parts:
        if part.data_ptr() != end:
            return None
        end += part.nbytes
    storage = first.untyped_storage()
    if begin == 0 or end > storage.data_ptr() + storage.nbytes():  # neighbours by chance
        return None
    rows = sum(len(part) for part in parts)
    return first.detach().as_strided((rows, *first.shape[1:]), first.stride())
