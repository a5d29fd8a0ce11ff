"""Position embeddings for images of another size than those that a model was trained on.

A model pre-trained on 224 pixels is finetuned on 384 or 480 (BLIP §4.1, §5): its positions, a
learned grid, are stretched as a picture is (ViT, arXiv 2010.11929, §3.2).

Shapes: P places, which are a square grid and one for the class token; D width.
"""

from collections.abc import Mapping
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor

GRIDS = tuple(f"vision_model{copy}.embeddings.position_embedding" for copy in ("", "_m"))


def side(places: int) -> int:
    """Compute the side of the grid of so many places; ValueError if they are no square and one."""
    root = isqrt(max(places - 1, 0))
    if root == 0 or root**2 != places - 1:
        raise ValueError(f"{places} positions are no square grid and one for the class token")
    return root


def interpolate(positions: Tensor, grid: int) -> Tensor:
    """Fit positions (1, P, D) to a grid of another side by bicubic interpolation."""
    old = side(positions.shape[1])
    if old == grid:
        return positions
    first, rest = positions[:, :1], positions[:, 1:]
    picture = rest.unflatten(1, (old, old)).permute(0, 3, 1, 2).float()  # (1, D, old, old)
    fitted = F.interpolate(picture, size=(grid, grid), mode="bicubic", align_corners=False)
    fitted = fitted.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)
    return torch.cat([first, fitted], dim=1)


def interpolate_all(tensors: Mapping[str, Tensor], grid: int) -> dict[str, Tensor]:
    """Fit the positions of a checkpoint, those of a momentum copy among them, to another grid."""
    return {
        name: interpolate(tensor, grid) if name in GRIDS else tensor
        for name, tensor in tensors.items()
    }
