"""How annotation files name pictures, and what such a name may mean below another folder.

A name may be URL-quoted, written with Windows' signs, begin at another machine's root, or spell its
letters in another of Unicode's forms.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeGuard
from urllib.parse import unquote

from shards.inputs.names import FOREIGN_EXTENSIONS, IMAGE_EXTENSIONS
from shards.reasons import SampleReason

PictureName = str | int
"""A path, or the last number in the name of the picture's file."""
Parts = tuple[str, ...]

_NUMBER = re.compile(r"(\d{1,18})\D*$", re.ASCII)
# a URL's scheme and host, or Windows' drive; then what a path may begin with
_ROOT = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]+:(?://[^/]*)?(?=/)|[A-Za-z]:(?=[/\\]))?/*")
_ENDINGS = tuple(f".{ending}" for ending in (*IMAGE_EXTENSIONS, *FOREIGN_EXTENSIONS))


@dataclass(frozen=True, slots=True)
class Reading:
    """What a name may mean: a path's parts; `is_absolute` if they begin at some machine's root."""

    parts: Parts
    is_absolute: bool


def readings(name: str) -> Iterator[Reading]:
    """Yield what a name may mean, the most literal first."""
    unquoted = dict.fromkeys((name, unquote(name)))
    forms = dict.fromkeys(form for text in unquoted for form in (text, text.replace("\\", "/")))
    for form in forms:
        root = _ROOT.match(form)
        start = root.end() if root is not None else 0
        parts = tuple(part for part in form[start:].split("/") if part not in ("", "."))
        yield Reading(parts, start > 0)


def is_name(name: object) -> TypeGuard[PictureName]:
    """Tell what may name a picture by its type alone."""
    return isinstance(name, str) or type(name) is int  # true is an int, too


def unusable(name: object) -> str | None:
    """Return why something names no picture below a folder; None if it may."""
    if not is_name(name):
        return SampleReason.IMAGE_MISSING
    if isinstance(name, int):
        return None if name >= 0 else SampleReason.IMAGE_MISSING
    if not name.strip():
        return SampleReason.IMAGE_MISSING
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # JSON's escapes can spell lone surrogates
        return SampleReason.IMAGE_MISSING
    climbs = ".." in unquote(name) and any(".." in reading.parts for reading in readings(name))
    if climbs or "\0" in name:
        return SampleReason.UNSAFE_MEMBER
    return None


def last_number(name: str) -> int | None:
    """Return the last number in a file's name, by which COCO and VisDial know a picture."""
    match = _NUMBER.search(PurePosixPath(name).stem)
    return int(match[1]) if match else None


def is_picture(name: str) -> bool:
    """Tell by its ending whether a file is a picture, of a format that is read or not."""
    return name.lower().endswith(_ENDINGS)


def folded(parts: Sequence[str]) -> Parts:
    """Write letters in one form (NFC), and a picture's ending in small letters."""
    composed = [unicodedata.normalize("NFC", part) for part in parts]
    if composed and is_picture(composed[-1]):
        stem, _, ending = composed[-1].rpartition(".")
        composed[-1] = f"{stem}.{ending.lower()}"
    return tuple(composed)


def without_ending(parts: Parts) -> Parts:
    """Cut off a picture's ending."""
    return (*parts[:-1], parts[-1].rpartition(".")[0]) if is_picture(parts[-1]) else parts


class NamesTogether:
    """The names of one annotation file, which tell its pictures apart.

    A folder may drop the start of a name only where no other name of the file says otherwise.
    """

    def __init__(self, names: Iterable[object]) -> None:
        self._by_stem: dict[str, set[Parts]] = {}
        for name in {name for name in names if isinstance(name, str)}:
            *_, last = readings(name)
            if parts := folded(last.parts):
                self._by_stem.setdefault(without_ending(parts)[-1], set()).add(parts)

    def rival(self, wanted: Parts, depth: int) -> str | None:
        """Return a name that ends as the wanted one does, in `depth` parts, and is another path.

        Of two names one may begin further up than the other. One that is no more than that end
        names the file itself.
        """
        for other in self._by_stem.get(without_ending(wanted)[-1], ()):
            shared = max(shared_end(other, wanted), shared_end(wanted, other))
            is_longer_way = shared == min(len(other), len(wanted)) and len(other) > depth
            if shared >= depth and not is_longer_way:
                return "/".join(other)
        return None


def shared_end(path: Sequence[str], wanted: Parts) -> int:
    """Count the parts at the end that a path shares with a wanted one, which may lack an ending."""
    parts = folded(path) if is_picture(wanted[-1]) else without_ending(folded(path))
    count = 0
    for part, other in zip(reversed(parts), reversed(wanted), strict=False):
        if part != other:
            break
        count += 1
    return count
