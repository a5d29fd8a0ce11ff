"""Turn hostile image bytes into an RGB picture, or into the reason why that cannot be done.

Bad bytes are a value here, never an exception: whatever a codec raises on a broken file becomes a
`DecodeRefusal` with a stable reason code. Sizes and the work that the file asks for are judged
from its structure, before any pixel is made.
"""

import io
import warnings
from dataclasses import dataclass, replace

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from pipeline.media.effort import excess_parts, excess_scans
from pipeline.media.formats import Source, jpeg
from pipeline.media.formats.foreign import foreign_format, other_content
from pipeline.media.formats.mend import as_found, is_cut, mended
from pipeline.media.frames import first_shown, is_blank
from shards.inputs.names import not_read
from shards.reasons import SampleReason

ALLOWED_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")

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

SIDEWAYS = {UPRIGHT[number] for number in (5, 6, 7, 8)}  # width becomes height

# Of a JPEG's reduced size, over what is wanted: with less, what resizes it has little to average,
# and four times as many of a filter's verdicts change.
SPARE = 2

HASH_SIDE = 16  # 16 x 16 differences: a 256-bit hash

# What Pillow says about each odd file stands in our notes and reasons; Python would also remember
# every such message for the life of the process.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Which pictures are worth decoding: sides and pixels as in the header.

    `wanted_side`: pixels of a side that whoever looks wants; a JPEG that is at least four times as
    large is decoded at a half, a quarter or an eighth of its size, no smaller than twice of that.
    """

    min_side: int
    max_pixels: int
    max_aspect: float
    wanted_side: int | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture in upright 8-bit RGB, with the name of its format and what was converted.

    `size` is the upright width and height of the file's picture, which `image` may be smaller than.
    """

    image: Image.Image
    format: str
    notes: tuple[str, ...]
    size: tuple[int, int]


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
        return _decode(data, limits)
    except Image.DecompressionBombError as error:  # raised by `open`, above Pillow's own limit
        return DecodeRefusal(SampleReason.IMAGE_TOO_LARGE, str(error))
    except MemoryError:
        raise
    except Exception as error:  # no list of what a codec may raise on hostile bytes is complete
        return _explain(data, error)


def _decode(data: bytes, limits: DecodeLimits) -> Decoded | DecodeRefusal:
    """Decode a file as it is, and if that fails without what decides no pixel, and with its end."""
    source = as_found(data)
    try:
        return _picture(source, limits)
    except (Image.DecompressionBombError, MemoryError):
        raise
    except Exception as error:
        again = mended(data)
        if again is None or again.data == source.data:
            raise
        try:
            return _picture(again, limits)
        except (Image.DecompressionBombError, MemoryError):
            raise
        except Exception:
            raise error from None  # which says more


def _picture(source: Source, limits: DecodeLimits) -> Decoded | DecodeRefusal:
    with Image.open(io.BytesIO(source.data), formats=ALLOWED_FORMATS) as opened:
        size = opened.size
        refusal = _judge_size(*size, limits)
        if refusal:
            return refusal
        pixels = opened.width * opened.height
        if excess := excess_scans(source.data, pixels):
            return DecodeRefusal(SampleReason.IMAGE_TOO_LARGE, excess)
        name = "jpeg" if opened.format == "MPO" else str(opened.format).lower()
        if limits.wanted_side is not None and name == "jpeg":
            side = SPARE * limits.wanted_side
            opened.draft(None, (side, side))
        image, notes = first_shown(opened, source)
        turn = UPRIGHT.get(_orientation(opened))
    if not source.is_ended:
        if not is_whole(source.data, pixels):
            return DecodeRefusal(
                SampleReason.IMAGE_TRUNCATED, f"{name}, cut off before its last pixels"
            )
        notes.append("end_mark_missing")
    if is_blank(image):
        if limits.wanted_side is not None and image.size != size:  # small marks may be gone
            return _picture(source, replace(limits, wanted_side=None))
        return DecodeRefusal(
            SampleReason.IMAGE_BLANK, f"one flat colour, {image.width} x {image.height}"
        )
    if turn is not None:
        image = image.transpose(turn)
        size = size[::-1] if turn in SIDEWAYS else size
        notes.append("exif_transposed")
    return Decoded(image, name, tuple(notes), size)


def is_whole(data: bytes, pixels: int) -> bool:
    """Say whether a picture of so many pixels whose end mark was missing is there as a whole.

    Only the codec of JPEG fills up what is missing; all others refuse it.
    """
    if not data.startswith(jpeg.SIGNATURE):
        return True
    return excess_scans(data, jpeg.DECODINGS * pixels) is None and jpeg.is_whole(data)


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


def _orientation(opened: Image.Image) -> int:
    """Read the EXIF orientation; broken EXIF is common, and no reason to lose a whole picture."""
    try:
        return int(opened.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _explain(data: bytes, error: BaseException) -> DecodeRefusal:
    if foreign := foreign_format(data):
        return DecodeRefusal(SampleReason.FORMAT_NOT_ALLOWED, not_read(foreign))
    what = f"{type(error).__name__}: {error}"[:200]
    if isinstance(error, UnidentifiedImageError):  # whose message holds an address in memory
        what = other_content(data) or "no header of a jpeg, png, webp or gif"
    if is_cut(data):
        return DecodeRefusal(SampleReason.IMAGE_TRUNCATED, f"cut at {len(data)} bytes; {what}")
    if "truncated" in what.lower():
        return DecodeRefusal(SampleReason.IMAGE_TRUNCATED, what)
    return DecodeRefusal(SampleReason.IMAGE_UNDECODABLE, what)


def difference_hash(image: Image.Image) -> bytes:
    """Hash 256 brightness steps between neighbours into 32 bytes; near-duplicates differ little."""
    small = image.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    grey = np.asarray(small.convert("L"), dtype=np.int16)
    return np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes()
