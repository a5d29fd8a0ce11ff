"""Where the web text of a sample stands: in a file of its own, or in a field of its sidecar."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shards.inputs.names import ROLES
from shards.inputs.sidecar import read_object

_EXTENSION = re.compile("[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*")
_MOST_BYTES = 16 << 20  # of a sidecar that is read for its text


@dataclass(frozen=True, slots=True)
class TextSource:
    """The ending of files that hold texts, or else the sidecar's field; neither: no texts."""

    extension: str | None = "txt"
    field: str | None = None

    @classmethod
    def parse(cls, source: str) -> "TextSource":
        """Read `txt`, another extension, `json:FIELD`, or `none`; ValueError for anything else."""
        kind, colon, field = source.partition(":")
        if colon and kind == "json" and field:
            return cls(None, field)
        if source == "none":
            return NO_TEXTS
        extension = source.removeprefix(".").lower()
        if colon or extension in ROLES or not _EXTENSION.fullmatch(extension):
            raise ValueError(
                f"{source!r} is no place of texts: expected an extension (txt, caption), or "
                "json:FIELD for a field of the sidecar (json:caption)"
            )
        return cls(extension)

    @property
    def is_none(self) -> bool:
        """Whether there are no texts to read."""
        return self.extension is None and self.field is None

    @property
    def roles(self) -> frozenset[str]:
        """What a whole sample has: a picture, and what holds its text."""
        if self.field is not None:
            return frozenset({"image", "meta"})
        return frozenset({"image"} if self.extension is None else {"image", "text"})

    def read(self, text: bytes | None, meta: bytes | None) -> bytes | None:
        """Return the text of a sample out of its files; None where there is none."""
        return text if self.field is None else _field_of(meta, self.field)


TXT, NO_TEXTS = TextSource(), TextSource(None)


def text_source(identity: Mapping[str, Any]) -> TextSource:
    """Return where the texts of a run's inputs stand; older runs do not say, and had `txt`."""
    return TextSource.parse(identity.get("input", {}).get("text", "txt"))


def _field_of(meta: bytes | None, field: str) -> bytes | None:
    """Read a field that holds a string."""
    found = read_object(meta) if meta is not None and len(meta) <= _MOST_BYTES else None
    text = found[1].get(field) if found is not None else None
    return text.encode() if isinstance(text, str) else None
