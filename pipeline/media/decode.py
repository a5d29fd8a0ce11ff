"""Turn hostile image bytes into an RGB picture, or into the reason why that cannot be done.

Bad bytes are a value here, never an exception: whatever a codec raises on a broken file becomes a
`DecodeRefusal` with a stable reason code. Sizes and the work that the file asks for are judged
from its structure, before any pixel is made.
"""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from pipeline.media.effort import excess_parts, excess_scans
from shards.reasons import SampleReason

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

# EXIF's orientation, and what turns such a picture upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

HASH_SIDE = 16  # 16 x 16 differences: a 256-bit hash

# What Pillow says about each odd file stands in our notes and reasons; Python would also remember
# every such message for the life of the process.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True, slots=True)
class DecodeLimits:
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
class DecodeRefusal:
    """Why an image is not used."""

    reason: SampleReason
    detail: str


def decode(data: bytes, limits: DecodeLimits) -> Decoded | DecodeRefusal:
    """Decode one image of an allowed format, by its content and not by its name.

    MemoryError is raised: the size was within the limits, so the machine is at fault.
    """
    if not data:
        return DecodeRefusal(SampleReason.IMAGE_EMPTY, "0 bytes")
    if excess := excess_parts(data):
        return DecodeRefusal(SampleReason.IMAGE_TOO_LARGE, excess)
    try:
        with Image.open(io.BytesIO(data), formats=ALLOWED_FORMATS) as opened:
            refusal = _judge_size(*opened.size, limits)
            if refusal:
                return refusal
            if excess := excess_scans(data, opened.width * opened.height):
                return DecodeRefusal(SampleReason.IMAGE_TOO_LARGE, excess)
            name = "jpeg" if opened.format == "MPO" else str(opened.format).lower()
            image, notes = _to_rgb(opened)
    except Image.DecompressionBombError as error:  # raised by `open`, above Pillow's own limit
        return DecodeRefusal(SampleReason.IMAGE_TOO_LARGE, str(error))
    except MemoryError:
        raise
    except Exception as error:  # no list of what a codec may raise on hostile bytes is complete
        return _explain(data, error)
    if _is_blank(image):
        return DecodeRefusal(
            SampleReason.IMAGE_BLANK, f"one flat colour, {image.width} x {image.height}"
        )
    return Decoded(image, name, notes)


def _judge_size(width: int, height: int, limits: DecodeLimits) -> DecodeRefusal | None:
    size = f"{width} x {height} pixels"
    if width * height > limits.max_pixels:
        return DecodeRefusal(
            SampleReason.IMAGE_TOO_LARGE, f"{size}, at most {limits.max_pixels} allowed"
        )
    if max(width, height) > limits.max_aspect * min(width, height):
        return DecodeRefusal(
            SampleReason.IMAGE_ASPECT, f"{size}, at most 1 : {limits.max_aspect:g} allowed"
        )
    if min(width, height) < limits.min_side:
        return DecodeRefusal(
            SampleReason.IMAGE_TOO_SMALL, f"{size}, at least {limits.min_side} a side wanted"
        )
    return None


def _to_rgb(opened: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    notes = []
    if getattr(opened, "is_animated", False):  # `n_frames` would walk through the whole file
        notes.append("first_frame_used")
    opened.load()
    image: Image.Image = opened
    turn = UPRIGHT.get(_orientation(opened))
    if turn is not None:
        image = image.transpose(turn)
        notes.append("exif_transposed")
    if image.mode.startswith("I"):
        image = _scale_16_bit(image)
        notes.append("scaled_16_bit")
    if image.has_transparency_data:
        image = _on_white(image)
        notes.append("alpha_on_white")
    elif image.mode == "CMYK":
        notes.append("cmyk_converted")
    # a conversion copies even where there is nothing to convert
    return image if image.mode == "RGB" else image.convert("RGB"), tuple(notes)


def _orientation(opened: Image.Image) -> int:
    """Read the EXIF orientation; broken EXIF is common, and no reason to lose a whole picture."""
    try:
        return int(opened.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _scale_16_bit(image: Image.Image) -> Image.Image:
    """Keep the high byte of grey levels; Pillow's own conversion clips all above 255 to white."""
    scaled = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if "transparency" in image.info:
        scaled.info["transparency"] = image.info["transparency"] >> 8
    return scaled


def _on_white(image: Image.Image) -> Image.Image:
    layered = image.convert("RGBA")
    white = Image.new("RGB", layered.size, "white")
    white.paste(layered, mask=layered)
    return white


def _explain(data: bytes, error: BaseException) -> DecodeRefusal:
    foreign = next((name for magic, name in FOREIGN_MAGIC.items() if data.startswith(magic)), None)
    if data[4:8] == b"ftyp":
        foreign = "heif, avif or video"
    if foreign:
        return DecodeRefusal(
            SampleReason.FORMAT_NOT_ALLOWED, f"{foreign}; jpeg, png, webp and gif are read"
        )
    if _is_cut_webp(data):
        return DecodeRefusal(SampleReason.IMAGE_TRUNCATED, f"webp, cut at {len(data)} bytes")
    if isinstance(error, UnidentifiedImageError):  # whose message holds an address in memory
        return DecodeRefusal(
            SampleReason.IMAGE_UNDECODABLE, "no header of a jpeg, png, webp or gif"
        )
    what = f"{type(error).__name__}: {error}"[:200]
    if "truncated" in what.lower():
        return DecodeRefusal(SampleReason.IMAGE_TRUNCATED, what)
    return DecodeRefusal(SampleReason.IMAGE_UNDECODABLE, what)


def _is_cut_webp(data: bytes) -> bool:
    """Compare the size in a WebP's header with the bytes there are; its codec tells no cause."""
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return is_webp and int.from_bytes(data[4:8], "little") + 8 > len(data)


def _is_blank(image: Image.Image) -> bool:
    return image.getcolors(maxcolors=1) is not None


def difference_hash(image: Image.Image) -> bytes:
    """Hash 256 brightness steps between neighbours into 32 bytes; near-duplicates differ little."""
    small = image.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BILINEAR)
    grey = np.asarray(small, dtype=np.int16)
    return np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes()
