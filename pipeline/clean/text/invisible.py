"""Take out of a text the characters that show nothing, and leave those that shape what is seen.

Invisible characters hide text from readers and filters, or come along when text is copied. Four
kinds have a use, each only where it stands: joiners in words and emoji, selectors behind the sign
whose form they select, and tags in the flags of England, Scotland and Wales.
"""

import re
import unicodedata
from functools import lru_cache

ZWNJ, ZWJ = "\u200c", "\u200d"

# Format characters (Cf) that are seen: signs around Arabic, Syriac and Kaithi numbers, and those
# that lay out hieroglyphs.
_SEEN_FORMATS = {
    *range(0x0600, 0x0606),
    *(0x06DD, 0x070F, 0x0890, 0x0891, 0x08E2, 0x110BD, 0x110CD),
    *range(0x13430, 0x13440),
}
# Of other categories, and yet unseen: joiners of letters, fillers of syllables, inherent vowels,
# the place of an embedded object. The last line is set aside for more of them.
_UNSEEN_OTHERS = {
    *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0xFFFC, 0x16FE4),
    *(0x2065, *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000)),
}
_BLANKS = {0x2800, 0x3164, 0xFFA0, 0x1D159}  # they show nothing, and take the room of a letter

_MONGOLIAN_SELECTORS = {0x180B, 0x180C, 0x180D, 0x180E, 0x180F}
_SELECTORS = range(0xFE00, 0xFE10)
_IDEOGRAPHIC_SELECTORS = range(0xE0100, 0xE01F0)

_VIRAMA = 9  # the class of the marks that kill a vowel; a joiner behind one makes a half letter

_FLAG = re.compile("\U0001f3f4\U000e0067\U000e0062[\U000e0061-\U000e007a]{3}\U000e007f")
_JOINERS = re.compile(f"[{ZWNJ}{ZWJ}]+")


def strip_invisible(text: str) -> str:
    """Return what a text shows, blanks of all kinds as spaces, with the joiners that it needs."""
    if text.isascii():
        return text
    kept, pos = [], 0
    for flag in _FLAG.finditer(text):
        kept += [_strip(text[pos : flag.start()]), flag.group()]
        pos = flag.end()
    return _JOINERS.sub(_joiner, "".join(kept) + _strip(text[pos:]))


def _strip(text: str) -> str:
    kept = [""]
    for character in text:
        seen = _seen(character)
        if seen is None:
            seen = character if _selects(character, kept[-1]) else ""
        if seen:
            kept.append(seen)
    return "".join(kept)


@lru_cache(maxsize=4096)
def _seen(character: str) -> str | None:
    """Say what stands for a character; None for a selector, which stands or falls with its base."""
    code = ord(character)
    if code in _BLANKS:
        return " "
    if code in _SELECTORS or code in _IDEOGRAPHIC_SELECTORS or code in _MONGOLIAN_SELECTORS:
        return None
    if character in (ZWNJ, ZWJ):
        return character
    hidden = unicodedata.category(character) == "Cf" and code not in _SEEN_FORMATS
    never_a_character = 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE
    return "" if hidden or never_a_character or code in _UNSEEN_OTHERS else character


def _selects(selector: str, base: str) -> bool:
    """Whether a selector directly behind `base` can change its form: once, and of few letters."""
    if not base:
        return False
    code = ord(selector)
    if code in _MONGOLIAN_SELECTORS:
        return 0x1820 <= ord(base) <= 0x18AA
    if code in _IDEOGRAPHIC_SELECTORS:
        return unicodedata.category(base) == "Lo"
    if base.isascii():
        return base in "#*0123456789"  # keycaps
    return not base.isspace() and _seen(base) == base and base not in (ZWNJ, ZWJ)


def _joiner(match: re.Match[str]) -> str:
    """Keep one joiner where it shapes what stands on both its sides, or a half letter before it."""
    text, joiner = match.string, match.group()[0]
    before, after = (
        text[max(match.start() - 1, 0) : match.start()],
        text[match.end() : match.end() + 1],
    )
    if before and unicodedata.combining(before) == _VIRAMA:
        return joiner
    if not before.strip() or not after.strip():
        return ""
    if joiner == ZWNJ and before.isalnum() and after.isalnum():
        return joiner
    return joiner if _joins(before) or _joins(after) else ""


def _joins(character: str) -> bool:
    """Whether it is of a script that joins its letters, or an emoji or a part of one."""
    return unicodedata.category(character) in {"Lo", "Mn", "Mc", "So", "Sk"}
