"""Which files of one folder belong to which picture, by their names alone.

A text stands in KEY.txt, else KEY.caption, else KEY.EXT.txt, endings in any case. Beside a picture
KEY.EXT what stands behind another dot (`KEY.mask.png`) is another field of the key, and no sample.
Of pictures that differ by their endings alone each is a sample with the same text.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from shards.inputs.names import FOREIGN_EXTENSIONS, IMAGE_EXTENSIONS, extension_of
from shards.inputs.text import TextSource
from shards.naming import key_text

_PICTURES = (*IMAGE_EXTENSIONS, *FOREIGN_EXTENSIONS)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture's file, with those that hold its text and its JSON; all are names in one folder."""

    name: str
    key: str
    text: str | None
    meta: str | None


def pictures_in(
    names: Iterable[str], text: TextSource, unused: Counter[str] | None = None
) -> Iterator[Picture]:
    """Yield the pictures of one folder in the order of their names, which are sorted.

    `unused` counts, by ending, texts and fields that are no picture's.
    """
    unused = Counter() if unused is None else unused
    for base, group in groupby(names, lambda name: name.partition(".")[0]):
        beside = {_with_small_ending(name): name for name in group}
        pictures = [name for name in beside.values() if extension_of(name) in _PICTURES]
        direct = [name for name in pictures if name.rpartition(".")[0] == base]
        used = set(direct or pictures)
        keys = set[str]()
        for name in direct or pictures:
            stem = name.rpartition(".")[0]
            key = name if stem in keys else stem
            keys.add(stem)
            found = next(filter(None, map(beside.get, _text_names(stem, name, text))), None)
            meta = beside.get(f"{stem}.json")
            used |= {found or name, meta or name}
            yield Picture(name, key_text(os.fsencode(key)), found, meta)
        unused.update(f".{extension_of(name)}" for name in beside.values() if name not in used)


def _with_small_ending(name: str) -> str:
    """Return a name with its ending in lower case, as sidecars are looked for."""
    stem, dot, ending = name.rpartition(".")
    return f"{stem}{dot}{ending.lower()}"


def _text_names(stem: str, name: str, text: TextSource) -> list[str]:
    if text.extension is None:
        return []
    if text.extension != "txt":
        return [f"{stem}.{text.extension}"]
    return [f"{stem}.txt", f"{stem}.caption", f"{name}.txt"]
