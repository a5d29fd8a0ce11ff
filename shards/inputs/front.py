"""Samples from the beginning of a shard on, for shards whose middle cannot be read alone.

In a gzip file nothing stands at a known place, and where the members of a sample stand apart no
stretch of the tar holds whole samples.
"""

import io
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from shards.inputs.reader import RawSample
from shards.inputs.text import TextSource
from shards.reasons import SampleReason


@dataclass(frozen=True, slots=True)
class Taken:
    """Some samples as a tar of their own; what they take in their shard are `sizes` bytes."""

    sizes: tuple[int, ...]
    tar: bytes


class Front:
    """Takes samples out of a shard, in the order in which they are read."""

    def __init__(self, raws: Iterable[RawSample], text: TextSource) -> None:
        self._text = text
        self._raws: Iterator[RawSample] = iter(raws)
        self.passed_bytes = 0  # of the shard
        self.is_apart = False  # members of a sample were seen that came too late
        self._taken = self._incomplete = 0
        self._is_over = False

    @property
    def is_doubtful(self) -> bool:
        """Whether most samples lack a picture or a text, which may stand further on."""
        return not self._is_over and self._incomplete > self._taken / 2

    def take(self, samples: int, most_bytes: int) -> Taken | None:
        """Take the next samples; None where none is left. Rejected ones go with the next."""
        buffer, sizes, begin = io.BytesIO(), list[int](), self.passed_bytes
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for raw in self._raws:
                self.passed_bytes = raw.end_offset
                if raw.reason is not None:
                    self.is_apart |= raw.reason == SampleReason.NOT_ADJACENT
                    continue
                self._taken += 1
                self._incomplete += self._lacks_a_part(raw)
                for name, data in self._members(raw):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                sizes.append(self.passed_bytes - begin - sum(sizes))
                if len(sizes) == samples or buffer.tell() > most_bytes:
                    break
            else:
                self._is_over = True
        return Taken(tuple(sizes), buffer.getvalue()) if sizes else None

    def _lacks_a_part(self, raw: RawSample) -> bool:
        return raw.image is None or ("text" in self._text.roles and raw.text is None)

    def _members(self, raw: RawSample) -> Iterator[tuple[str, bytes]]:
        if raw.image is not None:
            yield f"{raw.key}.{raw.image_ext or 'jpg'}", raw.image
        if raw.meta is not None:
            yield f"{raw.key}.json", raw.meta
        if raw.text is not None and self._text.extension is not None:
            yield f"{raw.key}.{self._text.extension}", raw.text
