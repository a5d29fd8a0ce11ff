"""Pictures as models take them: as bytes of one size, or as each guest prepares them.

Guests get them as RGB, in their own shape, of at most so many pixels.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from PIL import Image

from models.guests.config import ImageFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from models.blip.preprocess import Preprocess

_JPEG_QUALITY = 95


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture as one model takes it, and the bytes that it holds while it waits."""

    content: Any
    held_bytes: int


@runtime_checkable
class TakesPixels(Protocol):
    """A model of pictures of one size, whose batches are one tensor (B, 3, H, W) of bytes.

    Such a tensor is written once, and copied to a GPU while the batch before is computed; models
    with equal `preprocess` share it.
    """

    preprocess: Preprocess


def bounded(picture: Image.Image, max_pixels: int) -> Image.Image:
    """Return a picture as RGB, scaled down to at most `max_pixels`; its shape is kept."""
    picture = picture.convert("RGB")
    width, height = picture.size
    if width * height <= max_pixels:
        return picture
    scale = math.sqrt(max_pixels / (width * height))
    short = max(1, int(min(width, height) * scale))
    long = min(int(max(width, height) * scale), max_pixels // short)
    size = (long, short) if width > height else (short, long)
    return picture.resize(size, Image.Resampling.BICUBIC)


def encode(picture: Image.Image, image_format: ImageFormat) -> bytes:
    """Write a picture as the bytes of a file."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"quality": _JPEG_QUALITY} if image_format == "jpeg" else {}
    picture.save(buffer, image_format.upper(), **options)
    return buffer.getvalue()


def as_pixels(batch: Sequence[Prepared] | Tensor) -> Tensor:
    """Put pictures of one size, which a model prepared one by one, in one tensor; one stays."""
    import torch

    if isinstance(batch, torch.Tensor):
        return batch
    return torch.stack([prepared.content for prepared in batch])
