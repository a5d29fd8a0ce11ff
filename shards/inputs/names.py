"""What a file's name says: its key, its extension, and whether that is a picture's."""

import re
from dataclasses import dataclass

from shards.files import walk

IMAGE_EXTENSIONS = ("jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif")
FOREIGN_EXTENSIONS = (  # pictures that are not read, but told of
    *("bmp", "dib", "tif", "tiff", "avif", "heic", "heif", "jxl"),
    *("jp2", "j2k", "ico", "svg", "psd"),
)
ROLES = {
    **dict.fromkeys(IMAGE_EXTENSIONS, "image"),
    **dict.fromkeys(FOREIGN_EXTENSIONS, "foreign"),
    "json": "meta",
}


_TAR = re.compile(r"\.(tar|tar\.gz|tgz)$", re.IGNORECASE)


def not_read(form: str) -> str:
    """Say of a picture's format that it is not read, and what to do."""
    return f"{form} is not read; convert it to JPEG, PNG, WebP or GIF"


def stem(name: str) -> str:
    """Drop what marks a tar: `.tar`, `.tar.gz` or `.tgz` in any case."""
    return _TAR.sub("", name)


def is_tar(name: str) -> bool:
    """Check whether a name is that of a tar which is read."""
    return _TAR.search(name) is not None


def extension_of(name: str) -> str:
    """Return what a name ends with, in lower case and without the dot."""
    return name.rpartition(".")[2].lower() if "." in name else ""


@dataclass(frozen=True, slots=True)
class Field:
    """A member that a sample may use, by its name alone.

    `base` is the name up to the first dot after the last slash, and `key` the name without the
    extension: they differ in `000.mask.png`, which is another field of 000 where 000 has fields of
    its own, and else the picture of 000.mask.
    """

    base: bytes
    key: bytes
    extension: str
    role: str  # image, text, meta, or foreign: a picture that is not read

    @property
    def is_direct(self) -> bool:
        """Whether it stands directly behind the first dot."""
        return self.key == self.base

    @property
    def ending(self) -> bytes:
        """What stands behind the base."""
        return self.key[len(self.base) :] + b"." + self.extension.encode()


def field_of(name: bytes, text: str | None = "txt") -> Field | None:
    """Tell which field of which key a name is; None for hidden files and all of no interest.

    `text` is the ending of texts, or None if they stand elsewhere. A leading `./` is no part of a
    name.
    """
    while name.startswith(b"./"):
        name = name[2:].lstrip(b"/")
    extension, role = _ending(name, text)
    if role is None:
        return None
    key = name[: -len(extension) - 1]
    if not key.rpartition(b"/")[2] or is_hidden(name):
        return None
    return Field(base_of(key), key, extension, role)


def _ending(name: bytes, text: str | None) -> tuple[str, str | None]:
    if text is not None and name.lower().endswith(b"." + text.encode()):
        return text, "text"
    extension = name.rpartition(b".")[2].lower().decode("ascii", "replace")
    return extension, ROLES.get(extension)


def base_of(name: bytes) -> bytes:
    """Return a name up to the first dot after the last slash."""
    folder, slash, stem = name.rpartition(b"/")
    return folder + slash + stem.partition(b".")[0]


def is_hidden(path: bytes) -> bool:
    """Check whether a member, or a folder above it, is what a system keeps for itself."""
    parts = (part for part in path.split(b"/") if part not in (b".", b".."))
    return any(walk.is_hidden(part.decode("utf-8", "surrogateescape")) for part in parts)
