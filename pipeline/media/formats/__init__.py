"""The formats that are read, and others by name: what stands in a file beside its pixels."""

from dataclasses import dataclass

Box = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True, slots=True)
class Source:
    """The bytes for the codec, and what the file itself said."""

    data: bytes
    is_ended: bool = True  # its end mark was there
    significant_bits: int | None = None  # of a grey PNG's levels, as its sBIT says
