"""Pictures as guests take them: RGB, in their own shape, of at most so many pixels."""

import io
import math
from dataclasses import dataclass
from typing import Any

from PIL import Image

from models.guests.config import ImageFormat

_JPEG_QUALITY = 95


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture as one model takes it, and the bytes that it holds while it waits."""

    content: Any
    held_bytes: int


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
