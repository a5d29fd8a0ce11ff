"""Read a web text: mend what software broke in it, take out what nobody sees, put it on one line.

What is merely unusual stays as it was written; a text that shows nothing is no text.
"""

import re
import unicodedata
from dataclasses import dataclass, field

import ftfy
from ftfy.fixes import fix_c1_controls, unescape_html

from pipeline.clean.text.invisible import strip_invisible
from shards.reasons import TextReason

BOM = "\ufeff"

# Mended is what no author wrote: letters in a wrong encoding, terminal escapes, the ligatures that
# come out of PDF files (they look the same, and no vocabulary knows them). Curly quotes, and the
# wide punctuation of Chinese and Japanese, are right as they stand. Entities and control characters
# are ours: ftfy leaves entities alone beside a `<`, unescapes them once, and joins the words that a
# control character parts.
_FIXES = ftfy.TextFixerConfig(
    unescape_html=False,
    uncurl_quotes=False,
    fix_character_width=False,
    remove_control_chars=False,
    explain=False,
)

# A site that escapes with every edit makes `&amp;amp;amp;#39;`.
_ESCAPED_AGAIN = re.compile(r"&(?:(?:amp|#0*38|#x0*26);)+", re.IGNORECASE)

# One mend can uncover the next (an entity that spells mojibake); text that hides more is hostile.
_MOST_ROUNDS = 8


@dataclass(slots=True)
class WebText:
    """A text, with the reason if it is not usable; notes say what was changed."""

    text: str | None = None
    reason: TextReason | None = None
    language: str | None = None
    notes: list[str] = field(default_factory=list)


def read_web_text(data: bytes | None, max_bytes: int) -> WebText:
    """Read a web text as one clean line of at most `max_bytes`, or say why it is unusable.

    NUL bytes are the mark of UTF-16 that happens to decode.
    """
    if data is None:
        return WebText(reason=TextReason.MISSING)
    if len(data) > max_bytes:
        return WebText(reason=TextReason.TOO_LONG)
    try:
        written = data.decode("utf-8")
    except UnicodeDecodeError:
        return WebText(reason=TextReason.NOT_UTF8)
    if written.count("\0") * 4 > len(written):
        return WebText(reason=TextReason.NOT_UTF8)
    notes = []
    if written.startswith(BOM):
        written = written.removeprefix(BOM)
        notes.append("bom_stripped")
    text = clean_text(written)
    if text != written.strip():  # the line end of a file is no part of its text
        notes.append("text_cleaned")
    if not text:
        return WebText(reason=TextReason.EMPTY, notes=notes)
    if len(text.encode()) > max_bytes:  # composition can make a letter longer
        return WebText(reason=TextReason.TOO_LONG, notes=notes)
    return WebText(text, notes=notes)


def clean_text(text: str) -> str:
    """Mend a text and put what it shows on one line, empty if it shows nothing.

    Cleaning again changes nothing, unless faults are nested deeper than anybody's but a hostile
    text's.
    """
    for _ in range(_MOST_ROUNDS):
        before, text = text, _clean_once(text)
        if text == before:
            break
    return text


def _clean_once(text: str) -> str:
    if not (text.isascii() and text.isprintable() and "&" not in text):
        text = ftfy.fix_text(unescape_html(_ESCAPED_AGAIN.sub("&", text)), _FIXES)
        # what is left of them, in text that ftfy finds sound, is cp1252 as well; but not in cp1252
        # either, nor below, is there anything to see in a control character: it parts words
        parted = "".join(map(_part_words, fix_c1_controls(text)))
        text = unicodedata.normalize("NFC", strip_invisible(parted))
    return " ".join(text.split())


def _part_words(character: str) -> str:
    return " " if unicodedata.category(character) == "Cc" else character
