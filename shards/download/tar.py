"""The tar of a part: pictures as they came, with text and facts beside each, in the list's order.

Its bytes depend on what came alone, not on when or in which order it came.
"""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shards.run.record import canonical_json

_ENDINGS = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"GIF8": "gif"}


class PartTar:
    """Writes KEY.EXT, KEY.txt where there is a text, and KEY.json."""

    def __init__(self, path: Path) -> None:
        self.path, self.samples = path, 0
        self._tar = tarfile.open(path, "x", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed by close

    def add(self, key: str, picture: bytes, text: str | None, facts: Mapping[str, Any]) -> None:
        """Write one sample."""
        self._member(f"{key}.{ending_of(picture)}", picture)
        if text is not None:
            self._member(f"{key}.txt", text.encode("utf-8", "replace"))
        self._member(f"{key}.json", canonical_json(facts))
        self.samples += 1

    def close(self) -> None:
        """Write the end marker."""
        self._tar.close()

    def _member(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)  # owner and time stay zero
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))
        self._tar.members.clear()  # type: ignore[attr-defined]  # it would remember all of them


def ending_of(picture: bytes) -> str:
    """Name the ending by content; what is no picture is called one, for cleaning to say so."""
    if picture[:4] == b"RIFF" and picture[8:12] == b"WEBP":
        return "webp"
    return next((e for start, e in _ENDINGS.items() if picture.startswith(start)), "jpg")


def key_of(row: int) -> str:
    """Make the key of a row: unlike those of all other rows of the list."""
    return f"{row:09d}"
