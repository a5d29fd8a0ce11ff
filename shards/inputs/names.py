"""What a file's name says: its key, its extension, and whether that is a picture's."""

IMAGE_EXTENSIONS = ("jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif")
FOREIGN_EXTENSIONS = (  # pictures that are not read, but told of
    *("bmp", "dib", "tif", "tiff", "avif", "heic", "heif", "jxl"),
    *("jp2", "j2k", "ico", "svg", "psd"),
)


def split_name(name: bytes) -> tuple[bytes, str]:
    """Split a member's name at its last dot into key and lower-case extension.

    Hidden files (`._a.jpg` of macOS) and names without a dot have no extension.
    """
    key, dot, extension = name.rpartition(b".")
    base = name.rpartition(b"/")[2]
    if not dot or base.startswith(b".") or b"/" in extension:
        return name, ""
    return key, extension.decode("ascii", "replace").lower()
