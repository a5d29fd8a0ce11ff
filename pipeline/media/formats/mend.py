"""A file that its codec can read: without what decides no pixel, and with its end mark."""

from pipeline.media.formats import Source, gif, jpeg, png, webp


def as_found(data: bytes) -> Source:
    """Give a file as it goes to its codec at first.

    A PNG loses what the codec would inflate, a JPEG gets its end mark; others stay as they are.
    """
    if data.startswith(png.SIGNATURE):
        return png.bare(data)
    if data.startswith(gif.SIGNATURE):
        return Source(data, gif.is_ended(data))
    if data.startswith(jpeg.SIGNATURE) and not jpeg.is_ended(data):
        return jpeg.mended(data)
    return Source(data)


def mended(data: bytes) -> Source | None:
    """Give a file that its codec has refused once more; None where nothing can be mended."""
    if data.startswith(jpeg.SIGNATURE):
        return jpeg.mended(data)
    if data.startswith(png.SIGNATURE):
        return png.bare(data, is_still=True)
    if data.startswith(gif.SIGNATURE):
        return gif.mended(data)
    return webp.mended(data) if webp.is_webp(data) else None


def is_cut(data: bytes) -> bool:
    """Say whether a file of a format that is read ends before its end."""
    return webp.is_cut(data) if webp.is_webp(data) else not as_found(data).is_ended
