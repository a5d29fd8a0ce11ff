"""Turn hostile image bytes into an RGB picture, or into the reason why that cannot be done.

Bad bytes are a value here, never an exception: whatever a codec raises on a broken file becomes a
`Refusal` with a stable reason code. Sizes are judged from the header, before any pixel exists.
"""

import io
import struct
import warnings
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from shards.schema import SampleReason

ALLOWED_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")

# First bytes of formats that are images, but not ones that we hand to a codec.
FOREIGN_MAGIC = {
    b"BM": "bmp",
    b"II*\x00": "tiff",
    b"MM\x00*": "tiff",
    b"8BPS": "psd",
    b"\x00\x00\x01\x00": "ico",
    b"\xff\x0a": "jpeg-xl",
    b"\x00\x00\x00\x0cJXL ": "jpeg-xl",
    b"\x00\x00\x00\x0cjP  ": "jpeg-2000",
}

# What Pillow's decoders are known to raise on damaged files.
CODEC_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
)

HASH_SIDE = 16  # 16 x 16 differences: a 256-bit hash

# Our own limit, from the header, is the one that counts.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True, slots=True)
class Limits:
    """Which pictures are worth decoding: sides and pixels as in the header."""

    min_side: int
    max_pixels: int
    max_aspect: float


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture in upright 8-bit RGB, with the name of its format and what was converted."""

    image: Image.Image
    format: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an image is not used."""

    reason: SampleReason
    detail: str


def decode(data: bytes, limits: Limits) -> Decoded | Refusal:
    """Decode one image of an allowed format, by its content and not by its name."""
    if not data:
        return Refusal(SampleReason.IMAGE_EMPTY, "0 bytes")
    try:
        with Image.open(io.BytesIO(data), formats=ALLOWED_FORMATS) as opened:
            refusal = _judge_size(*opened.size, limits)
            if refusal:
                return refusal
            name = "jpeg" if opened.format == "MPO" else str(opened.format).lower()
            image, notes = _to_rgb(opened)
    except Image.DecompressionBombError as error:
        return Refusal(SampleReason.IMAGE_TOO_LARGE, str(error))
    except CODEC_ERRORS as error:
        return _explain(data, error)
    if _is_blank(image):
        return Refusal(SampleReason.IMAGE_BLANK, f"one flat colour, {image.width} x {image.height}")
    return Decoded(image, name, notes)


def _judge_size(width: int, height: int, limits: Limits) -> Refusal | None:
    size = f"{width} x {height} pixels"
    if width * height > limits.max_pixels:
        return Refusal(SampleReason.IMAGE_TOO_LARGE, f"{size}, at most {limits.max_pixels} allowed")
    if max(width, height) > limits.max_aspect * min(width, height):
        return Refusal(
            SampleReason.IMAGE_ASPECT, f"{size}, at most 1 : {limits.max_aspect:g} allowed"
        )
    if min(width, height) < limits.min_side:
        return Refusal(
            SampleReason.IMAGE_TOO_SMALL, f"{size}, at least {limits.min_side} a side wanted"
        )
    return None


def _to_rgb(opened: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    notes = []
    if getattr(opened, "n_frames", 1) > 1:
        opened.seek(0)
        notes.append("first_frame_used")
    opened.load()
    image: Image.Image = opened
    if opened.getexif().get(0x0112, 1) not in (0, 1):  # the EXIF tag of orientation
        image = ImageOps.exif_transpose(opened)
        notes.append("exif_transposed")
    if image.mode.startswith("I"):
        image = _scale_16_bit(image)
        notes.append("scaled_16_bit")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = _on_white(image)
        notes.append("alpha_on_white")
    elif image.mode == "CMYK":
        notes.append("cmyk_converted")
    return image.convert("RGB"), tuple(notes)


def _scale_16_bit(image: Image.Image) -> Image.Image:
    """Scale 0..65535 to 0..255; Pillow's own conversion clips everything above 255 to white."""
    levels = np.asarray(image).astype(np.uint32).clip(0, 65535)
    return Image.fromarray(((levels + 128) // 257).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    layered = image.convert("RGBA")
    white = Image.new("RGBA", layered.size, "white")
    return Image.alpha_composite(white, layered)


def _explain(data: bytes, error: BaseException) -> Refusal:
    foreign = next((name for magic, name in FOREIGN_MAGIC.items() if data.startswith(magic)), None)
    if data[4:8] == b"ftyp":
        foreign = "heif or avif"
    if foreign:
        return Refusal(
            SampleReason.FORMAT_NOT_ALLOWED, f"{foreign}; jpeg, png, webp and gif are read"
        )
    what = f"{type(error).__name__}: {error}"[:200]
    if "truncated" in what.lower():
        return Refusal(SampleReason.IMAGE_TRUNCATED, what)
    return Refusal(SampleReason.IMAGE_UNDECODABLE, what)


def _is_blank(image: Image.Image) -> bool:
    return all(low == high for low, high in image.getextrema())


def difference_hash(image: Image.Image) -> bytes:
    """Hash 256 brightness steps between neighbours into 32 bytes; near-duplicates differ little."""
    small = image.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BILINEAR)
    grey = np.asarray(small, dtype=np.int16)
    return np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes()
