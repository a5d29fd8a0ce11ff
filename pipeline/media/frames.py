"""The picture that an animation is known by: its first frame that shows something."""

from collections.abc import Sequence
from itertools import islice

from PIL import Image

from pipeline.media.colour import to_rgb
from pipeline.media.formats import Box, Source, gif, webp

# How far a first frame that shows something is looked for: frames, and their pixels together.
MOST_FRAMES = 64
MOST_PIXELS = 50_000_000


def first_shown(opened: Image.Image, source: Source) -> tuple[Image.Image, list[str]]:
    """Turn the first frame into RGB, or a later one where that is blank; with notes.

    What no frame covers is white, as what is clear.
    """
    # `n_frames` would walk through the whole file
    is_animated = bool(getattr(opened, "is_animated", False))
    covered = [_box(opened, _boxes(opened, source.data, 1), 0)]
    opened.load()
    image, notes = to_rgb(opened, source.significant_bits)
    image = _outside_white(image, covered)
    if not is_animated:
        return image, notes
    if is_blank(image) and opened.format != "MPO":  # whose others are no frames
        later = _later(opened, source.data, covered)
        if later is not None:
            return later[0], ["later_frame_used", *later[1]]
    return image, ["first_frame_used", *notes]


def is_blank(image: Image.Image) -> bool:
    """Say whether an image is one flat colour."""
    return image.getcolors(maxcolors=1) is not None


def _boxes(opened: Image.Image, data: bytes, most: int) -> Sequence[Box]:
    """Find where frames stand, as far as the codec does not tell."""
    walk = {"GIF": gif.boxes, "WEBP": webp.boxes}.get(opened.format or "")
    return list(islice(walk(data), most)) if walk else ()


def _box(opened: Image.Image, boxes: Sequence[Box], number: int) -> Box:
    """Find where a frame stands that is not loaded yet."""
    if number < len(boxes):
        return boxes[number]
    tiles = getattr(opened, "tile", ())
    return tiles[0][1] if opened.format == "PNG" and tiles else (0, 0, *opened.size)


def _later(
    opened: Image.Image, data: bytes, covered: list[Box]
) -> tuple[Image.Image, list[str]] | None:
    """Look for a frame behind the first that shows something."""
    width, height = opened.size
    most = min(MOST_FRAMES, 1 + MOST_PIXELS // (width * height))
    boxes = _boxes(opened, data, most)
    if opened.format != "PNG":
        most = len(boxes)
    for number in range(1, most):
        try:
            if number < len(boxes) and not _is_within(boxes[number], width, height):
                return None
            opened.seek(number)
            covered.append(_box(opened, boxes, number))
            opened.load()
            image, notes = to_rgb(opened, None)
        except MemoryError:
            raise
        except Exception:  # it ends here, or is broken: so does the search
            return None
        image = _outside_white(image, covered)
        if not is_blank(image):
            return image, notes
    return None


def _is_within(box: Box, width: int, height: int) -> bool:
    """Say whether a frame fits its canvas, which would grow with it."""
    return box[2] <= width and box[3] <= height


def _outside_white(image: Image.Image, covered: Sequence[Box]) -> Image.Image:
    if (0, 0, *image.size) in covered:
        return image
    white = Image.new("RGB", image.size, "white")
    mask = Image.new("1", image.size)
    for box in covered:
        mask.paste(1, box)
    white.paste(image, mask=mask)
    return white
