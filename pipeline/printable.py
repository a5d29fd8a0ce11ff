"""How numbers and hostile text are written for people: on a page, and wherever else they are read.

Keys, captions and URLs come from the web and may hold anything. What would move a cursor, turn the
direction of reading or hide itself is written out; what letters need, such as joiners, stays.
"""

import math
import unicodedata
from collections.abc import Mapping

_DELETE = 0x7F
_CONTROL_PICTURES = 0x2400  # U+2400 and on draw the 32 first control characters
_DELETE_PICTURE = "\u2421"
_JOINERS = {"\u200c", "\u200d"}  # Persian and Hindi need them, and so do families of emoji
_HIDDEN = {"Cc", "Cf", "Zl", "Zp", "Cs"}


def visible(text: str) -> str:
    """Write control characters as pictures (␛) and other unseen ones as escapes (\\u202e)."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    code = ord(character)
    if code < ord(" "):
        return chr(_CONTROL_PICTURES + code)
    if code == _DELETE:
        return _DELETE_PICTURE
    if character in _JOINERS:
        return character
    if unicodedata.category(character) in _HIDDEN or _is_no_character(code):
        return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
    return character


def _is_no_character(code: int) -> bool:
    return 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE


def cut(text: str | None, most: int) -> str | None:
    """Cut a text after `most` characters, with an ellipsis where something is missing."""
    return text if text is None or len(text) <= most else text[:most].rstrip() + "…"


def count(number: int) -> str:
    """Write a count with its thousands apart: 1,083."""
    return f"{number:,}"


def number_of(number: int, noun: str) -> str:
    """Write a count with what is counted: 1 shard, 1,083 shards."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def tally(counts: Mapping[str, int]) -> str:
    """Write counts by name, the largest first: image_missing 24, image_blank 3."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {number:,}" for name, number in ordered)


def percent(part: float, whole: float) -> str:
    """Write a share with one decimal; none but all is 100.0 %, and none but nothing 0.0 %."""
    if not whole:
        return "\u2013"
    share = 100 * part / whole
    if 0 < share < 0.05:
        return "< 0.1 %"
    if 99.95 <= share < 100:
        return "> 99.9 %"
    return f"{share:.1f} %"


def score(value: float | None) -> str:
    """Write a score with four decimals; what is no number says so."""
    if value is None:
        return "none"
    return _signed(f"{value:.4f}") if math.isfinite(value) else "not finite"


def margin(value: float | None) -> str:
    """Write the signed distance from a threshold; a tiny one never looks like none at all."""
    if value is None or not math.isfinite(value):
        return ""
    form = "+.4f" if abs(value) >= 5e-5 or value == 0 else "+.0e"
    return _signed(format(value, form))


def size(size_bytes: int) -> str:
    """Write a size as people do: 1.3 MB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.1f} {unit}"
    return f"{size_bytes} bytes"


def _signed(number: str) -> str:
    return number.replace("-", "\u2212")
