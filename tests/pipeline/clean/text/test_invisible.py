# ruff: noqa: RUF001 - signs of many alphabets are what is tested
"""Invisible characters go; those that shape what is seen stay where they do."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clean.text.invisible import strip_invisible

# Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt, 15.0): what a font without a
# picture for it must not show.
IGNORABLE = "".join(
    chr(code)
    for first, last in [
        (0x00AD, 0x00AD),
        (0x034F, 0x034F),
        (0x061C, 0x061C),
        (0x115F, 0x1160),
        (0x17B4, 0x17B5),
        (0x180B, 0x180F),
        (0x200B, 0x200F),
        (0x202A, 0x202E),
        (0x2060, 0x206F),
        (0x3164, 0x3164),
        (0xFE00, 0xFE0F),
        (0xFEFF, 0xFEFF),
        (0xFFA0, 0xFFA0),
        (0xFFF0, 0xFFF8),
        (0x1BCA0, 0x1BCA3),
        (0x1D173, 0x1D17A),
        (0xE0000, 0xE0FFF),
    ]
    for code in range(first, last + 1)
)
JOINERS = "\u200c\u200d"
ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"


def test_alone_none_of_them_stays() -> None:
    for character in (*IGNORABLE, "\u2800", "\ufffc", "\ufff9", "\ufdd0", "\uffff", "\U0001d159"):
        for text in (character, character * 3, f" {character} {character}"):
            assert strip_invisible(text).strip() == "", ascii(character)


def test_between_the_letters_of_a_word_none_of_them_stays() -> None:
    """But ZWNJ, which keeps letters apart, and blanks, which part words."""
    for character in set(IGNORABLE) - {"\u200c", "\u3164", "\uffa0"}:
        assert strip_invisible(f"a re{character}d square{character}") == "a red square"
    assert strip_invisible("a\u2800red\u3164square") == "a red square"


@pytest.mark.parametrize(
    "text",
    [
        "می‌خواهم کتاب‌ها",  # Persian: ZWNJ
        "HTML‌های ۵‌ام",
        "shelf\u200cful Auf\u200clage",
        "ශ්\u200dරී ලංකා",  # Sinhala: ZWJ behind a virama
        "क्\u200dष और क्\u200d",
        "അവന്\u200d പറഞ്ഞു",  # Malayalam's older chillu: at the end of a word
        "۱۴۰۰ ه\u200d.ق",
        "👩\u200d👩\u200d👧 👩🏽\u200d🚀 👩\u200d❤\ufe0f\u200d👩",
        "❤\ufe0f ☎\ufe0e 1\ufe0f\u20e3 #\ufe0f\u20e3 *\ufe0f\u20e3 ℹ\ufe0f ‼\ufe0f",
        "🏴\u200d☠\ufe0f 🏳\ufe0f\u200d🌈",
        ENGLAND + " wins",
        "葛\U000e0100城 ㊙\ufe0f",
        "ᠠ\u180bᠨ ᠮᠣᠩᠭᠣᠯ",
        "سنة \u0601١٤٤٥ \u06dd١",  # signs around numbers: format characters that are seen
        "\u0915\ufe00",
    ],
)
def test_what_shapes_the_text_stays(text: str) -> None:
    assert strip_invisible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\u200cمی\u200c\u200cخواهم\u200c ", "می\u200cخواهم "),  # one is enough; at the ends none
        ("👩\u200d \u200d👩", "👩 👩"),
        ("a\u200dred", "ared"),
        ("é\u200dé", "éé"),
        ("a\ufe0f \ufe0fb .\ufe0f", "a b ."),
        ("❤\ufe0f\ufe0f\ufe0e", "❤\ufe0f"),
        ("❤\ufe0f\U000e0100", "❤\ufe0f"),
        ("é\U000e0100 \U000e0100", "é "),
        ("a\u180bb", "ab"),
        (ENGLAND[:-1], "\U0001f3f4"),  # without its end, and of more than five letters: no flag
        (ENGLAND[:-1] + "\U000e0067" + ENGLAND[-1], "\U0001f3f4"),
        (ENGLAND + "\U000e0067", ENGLAND),
        ("un\u00addated sa\u2060le \u2066x\u2069", "undated sale x"),
        ("\u202eevil\u202c", "evil"),
    ],
)
def test_what_shapes_nothing_goes(text: str, shown: str) -> None:
    assert strip_invisible(text) == shown


@given(st.text(st.sampled_from([*IGNORABLE, *"aé1 #.،مक्👩❤🏽葛ᠠ\u0301\u2800"]), max_size=24))
def test_of_any_mixture_only_what_has_a_neighbour_stays(text: str) -> None:
    shown = strip_invisible(text)
    assert strip_invisible(shown) == shown
    seen = [character for character in text if character not in IGNORABLE + "\u2800 "]
    assert [character for character in shown if character not in IGNORABLE + " "] == seen
    for before, character in zip(" " + shown, shown, strict=False):
        if character in IGNORABLE:
            assert character in JOINERS or unicodedata.category(character) in ("Mn", "Cf")
            assert not before.isspace()
            assert before not in JOINERS
