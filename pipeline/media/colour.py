"""Turn what a codec gives, of any mode and depth, into 8-bit RGB on white."""

import numpy as np
from PIL import Image

NARROW_BITS = (8, 10, 12)  # depths that programs store in 16 bits without scaling them
_FULL_BITS = 16
_MOST_TESTED = 1 << 12  # no level of a narrow depth is above
_PART = 1 << 20


def to_rgb(opened: Image.Image, significant_bits: int | None) -> tuple[Image.Image, list[str]]:
    """Convert a loaded picture; give the notes of what was converted, too.

    `significant_bits`: of a grey picture of 16 bits, where its file tells them.
    """
    notes = []
    image, clear = opened, None
    if image.mode.startswith("I"):
        image, clear, is_narrow = _scaled(image, significant_bits)
        notes += ["scaled_16_bit", "low_levels_raised"] if is_narrow else ["scaled_16_bit"]
    if clear is not None:
        image.paste(255, mask=clear)
        notes.append("alpha_on_white")
    elif image.has_transparency_data:
        image = _on_white(image)
        notes.append("alpha_on_white")
    elif image.mode == "CMYK":
        notes.append("cmyk_converted")
    # a conversion copies even where there is nothing to convert
    return image if image.mode == "RGB" else image.convert("RGB"), notes


def _scaled(
    image: Image.Image, significant_bits: int | None
) -> tuple[Image.Image, Image.Image | None, bool]:
    """Scale grey levels to 8 bits; Pillow's own conversion clips all above 255 to white.

    The one level that may be clear is looked for before that: others share its high byte.
    """
    levels = np.asarray(image)
    bits = level_bits(levels, significant_bits)
    scaled = Image.fromarray((levels >> (bits - 8)).astype(np.uint8))
    key = image.info.get("transparency")
    clear = None if key is None else Image.fromarray(levels == key)
    return scaled, clear, bits < _FULL_BITS


def level_bits(levels: np.ndarray, significant_bits: int | None = None) -> int:
    """Find the bits that grey levels stored in 16 were measured in.

    The standard wants 10 or 12 bits scaled up to 16; many cameras, scanners and programs leave them
    as they are, and such a picture would be all but black. If sBIT names a depth, and all levels
    fit it, they were left so; else the smallest of 8, 10 and 12 bits that the brightest level fits.
    Not so for dark pictures of 16 bits, which can be told by their levels: those that were scaled
    up from fewer bits are multiples of 16 or 257, or repeat their high bits; and where the
    brightest is below half of 8 bits nothing can be seen at any depth.
    """
    brightest = int(levels.max())
    if brightest >= _MOST_TESTED or brightest < 1 << (NARROW_BITS[0] - 1):
        return _FULL_BITS
    if _was_scaled_up(_different(levels)):
        return _FULL_BITS
    if significant_bits is not None and 8 <= significant_bits < _FULL_BITS:
        return significant_bits if brightest < 1 << significant_bits else _FULL_BITS
    return next(bits for bits in NARROW_BITS if brightest < 1 << bits)


def _different(levels: np.ndarray) -> np.ndarray:
    """Collect the levels that occur; a part at a time, since indexing takes 8 bytes for each."""
    occurs = np.zeros(_MOST_TESTED, dtype=bool)
    for part in np.array_split(levels, 1 + levels.size // _PART):
        occurs[part] = True
    return np.flatnonzero(occurs)


def _was_scaled_up(levels: np.ndarray) -> bool:
    """Say whether levels below 4,096 were scaled up to 16 bits from 8, 10 or 12."""
    ten_bits = levels >> 6
    repeated = ten_bits << 6 | ten_bits >> 4
    return not (levels % 16).any() or not (levels % 257).any() or bool((levels == repeated).all())


def _on_white(image: Image.Image) -> Image.Image:
    layered = image.convert("RGBA")
    white = Image.new("RGB", layered.size, "white")
    white.paste(layered, mask=layered)
    return white
