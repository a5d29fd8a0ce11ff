"""Pictures that were prepared one by one, put together as one batch.

The batch equals what the family's own processor makes of all pictures at once, padded on the left.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_TOKENS = 2  # axes of a row of tokens


def collate(rows: Sequence[Mapping[str, Tensor]], pad_id: int) -> dict[str, Tensor]:
    """Put inputs (1 or more, …) of each picture together; tokens are padded on the left."""
    return {
        name: _join([row[name] for row in rows], pad_id if name.endswith("input_ids") else 0)
        for name in rows[0]
    }


def to_model(
    batch: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Move a batch to a model; some families do not cast pictures to the weights' type."""
    return {
        name: tensor.to(device, dtype if tensor.is_floating_point() else None)
        for name, tensor in batch.items()
    }


def held_bytes(row: Mapping[str, Tensor]) -> int:
    """Count the bytes of one picture's inputs."""
    return sum(tensor.nbytes for tensor in row.values())


def _join(tensors: Sequence[Tensor], pad: int) -> Tensor:
    shapes = {tensor.shape[1:] for tensor in tensors}
    if len(shapes) == 1:
        return torch.cat(list(tensors))
    first = tensors[0]
    inner = [max(sizes) for sizes in zip(*shapes, strict=True)]
    tokens = first.ndim == _TOKENS and not first.is_floating_point()
    padded = []
    for tensor in tensors:
        missing = [most - size for most, size in zip(inner, tensor.shape[1:], strict=True)]
        # from the last axis to the first, before and behind: tokens to the right, pictures first
        sides = [side for gap in reversed(missing) for side in ((gap, 0) if tokens else (0, gap))]
        padded.append(F.pad(tensor, sides, value=pad))
    return torch.cat(padded)
