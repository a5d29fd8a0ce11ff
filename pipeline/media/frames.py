"""The picture that an animation is known by: its first frame that shows something."""

from collections.abc import Sequence

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
    places = _places(opened, source.data, is_animated=is_animated)
    covered = [_box(opened, places, 0)]
    opened.load()
    image, notes = to_rgb(opened, source.significant_bits)
    image = _outside_white(image, covered)
    if not is_animated:
        return image, notes
    if is_blank(image) and opened.format != "MPO":
        later = _later(opened, places, covered)
        if later is not None:
            return later[0], ["later_frame_used", *later[1]]
    return image, ["first_frame_used", *notes]


def is_blank(image: Image.Image) -> bool:
    """Say whether an image is one flat colour."""
    return image.getcolors(maxcolors=1) is not None


def _places(opened: Image.Image, data: bytes, *, is_animated: bool) -> Sequence[Box]:
    if opened.format == "GIF":
        return gif.boxes(data)
    return webp.boxes(data) if opened.format == "WEBP" and is_animated else ()


def _box(opened: Image.Image, places: Sequence[Box], number: int) -> Box:
    """Find where a frame stands that is not loaded yet."""
    if number < len(places):
        return places[number]
    tiles = getattr(opened, "tile", ())
    return tiles[0][1] if opened.format == "PNG" and tiles else (0, 0, *opened.size)


def _later(
    opened: Image.Image, places: Sequence[Box], covered: list[Box]
) -> tuple[Image.Image, list[str]] | None:
    """Look for a frame behind the first that shows something."""
    width, height = opened.size
    most = min(MOST_FRAMES, 1 + MOST_PIXELS // (width * height))
    if opened.format != "PNG":
        most = min(most, len(places))
    for number in range(1, most):
        try:
            if number < len(places) and not _is_within(places[number], width, height):
                return None
            opened.seek(number)
            covered.append(_box(opened, places, number))
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
