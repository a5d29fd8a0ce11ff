# ruff: noqa: RUF001 - signs of many alphabets are what is tested
"""Web texts: what is broken is mended, what nobody sees goes, what is right stays as it is."""

import html
import re
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clean.text.web_text import clean_text, read_web_text
from pipeline.printable import visible
from shards.reasons import TextReason
from tests.support.tars import read_members

CLEANED = ["text_cleaned"]


@pytest.mark.parametrize(
    ("data", "text", "notes"),
    [
        (b"a cat", "a cat", []),
        (b" a cat\r\n", "a cat", []),  # the line end of a file
        (b"\xef\xbb\xbfa cat", "a cat", ["bom_stripped"]),
        (b"\xef\xbb\xbf\xef\xbb\xbfa cat", "a cat", ["bom_stripped", "text_cleaned"]),
        (b"a\r\ncat\n\non a\tmat", "a cat on a mat", CLEANED),
        (b"a\rcat", "a cat", CLEANED),
        (b"\x1b[31mred\x1b[0m\x07 cat\x00on", "red cat on", CLEANED),
        ("a\u2028cat\u00a0sat\u3000here".encode(), "a cat sat here", CLEANED),
        ("e\u0301".encode(), "\u00e9", CLEANED),
        ("\u202eevil\u202c \u2066x\u2069 a\u200eb \u061cz".encode(), "evil x ab z", CLEANED),
    ],
)
def test_text_is_one_clean_line(data: bytes, text: str, notes: list[str]) -> None:
    found = read_web_text(data, 1000)
    assert (found.text, found.reason, found.notes) == (text, None, notes)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        # entities, as often as they were escaped
        ("Dog&#39;s", "Dog's"),
        ("Dog&amp;#39;s", "Dog's"),
        ("Dog&amp;amp;amp;amp;amp;amp;amp;amp;amp;amp;amp;#39;s", "Dog's"),
        ("Tom &AMP;amp; Jerry &#38;lt;3 &#x26;hearts;", "Tom & Jerry <3 ♥"),
        ("<b>Tom &amp; Jerry</b>", "<b>Tom & Jerry</b>"),
        ("caf&eacute;&nbsp;&shy;&zwnj;&#8203;&#x2014; Caf&Eacute;", "café — CafÉ"),
        ("it&#146;s &#x85;", "it’s …"),
        ("&#0;&#xD800;x", "\ufffd\ufffdx"),
        # mojibake
        ("cafÃ©", "café"),
        ("L&Atilde;&copy;zard", "Lézard"),
        ("CafÃƒÂ© â€œdogâ€™sâ€\x9d", "Café “dog’s”"),
        ("Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "привет"),
        ("ç\x8c« and æ—¥æœ¬", "猫 and 日本"),
        ("Ã la carte voil\u00c3\u00a0", "à la carte voilà"),
        ("ï»¿a cat", "a cat"),
        # C1 controls are letters of cp1252
        ("it\x92s \x93red\x94 \x96 10 \x80\x85", "it’s “red” – 10 €…"),
        ("日本\x85 \x81\x8d x", "日本… x"),
        # what a PDF file makes of letters
        ("ﬁsh and waﬄe", "fish and waffle"),
    ],
)
def test_what_software_broke_is_mended(written: str, text: str) -> None:
    found = read_web_text(written.encode(), 1000)
    assert (found.text, found.notes) == (text, CLEANED)


# Each is right as it stands: languages, and what is easily taken for broken.
RIGHT = [
    "L’été, « déjà vu » à l’Hôtel-Dieu — ÊTRE ou NE PAS ÊTRE",
    "SÃO PAULO, CORAÇÃO, AÇÃO; Ã, Õ e “aspas”",
    "Größe: ÄÖÜ ß, „Straße“ in KÖLN, ‚so‘",
    "Å i Lofoten, ÆØÅ, blåbærsyltetøy; Jäätelö ÖÄ, PÄRNU Õ",
    "Příliš žluťoučký kůň; Zażółć gęślą jaźń ŁÓDŹ",
    "Çağrı’nın İstanbul’u, ŞIĞ; Đà Nẵng, một con mèo đẹp",
    "Þetta er íslenska; ħobż tal-Malti; L·L col·lecció",
    "Ένα κόκκινο τετράγωνο· Είναι;",
    "Красный квадрат, ёж, їжак, Ђурђевак",
    "ריבוע אדום, שָׁלוֹם; مُرَبَّع أحمر، ٣٫١٤؟",
    "می\u200cخواهم؛ گربه\u200cها",
    "लाल वर्ग। क्\u200dष, லால் சதுரம், లాల్, ലാൽ അവന്\u200d, ශ්\u200dරී",
    "สี่เหลี่ยมสีแดง, ຮູບ, ការេក្រហម, အနီရောင်, གཡག",
    "红色的方块，（图）“猫”！ＡＢＣ１２３；繁體：紅色",
    "赤い四角、「猫」ﾊﾝｶｸ カタカナー〜・ｗｗｗ",
    "빨간 네모, 고양이; ᄒᆞᆫ글",
    "წითელი კვადრატი, կարմիր, ቀይ ካሬ, ᏣᎳᎩ, ᠮᠣᠩᠭᠣᠯ",
    "👩\u200d👩\u200d👧 👍🏽 ❤\ufe0f 1\ufe0f\u20e3 🇫🇷 🙂 — 10³ µm ½ ™ © ® № ℃ ℹ\ufe0f ①",
    "Dogs & Cats, AT&T; R&D; fish&chips, a &copy b, ?a=1&b=2",
    "¿Qué? ¡Niño! 5 € £3 ¥4 ±1° × ÷ «x» ‹y› † ‡ • … ‰",
    "O'Neil \"quoted\" 'single' `back` <b>bold</b> C:\\new\\table {x} %20 \\u00e9",
    "ʻOkina, Hawaiʻi, Ŧ ŋ ə ʃ θ, x̄ ẍ, Z̷",
]


@pytest.mark.parametrize("text", RIGHT)
def test_what_is_right_stays(text: str) -> None:
    assert unicodedata.is_normalized("NFC", text)
    found = read_web_text(text.encode(), 1000)
    assert (found.text, found.notes) == (text, [])


@pytest.mark.parametrize("text", RIGHT)
def test_what_was_right_is_found_again_under_two_escapings(text: str) -> None:
    """HTML's, twice over; but an ampersand of the text's own that looks like one is taken along."""
    plain = re.sub(r"&(?=\w+;)", "", text)
    assert clean_text(html.escape(html.escape(plain))) == plain


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, TextReason.MISSING),
        (b"", TextReason.EMPTY),
        (b" \r\n\t ", TextReason.EMPTY),
        (b"\xef\xbb\xbf\xef\xbb\xbf", TextReason.EMPTY),
        ("\u200e\u202e\x07 ".encode(), TextReason.EMPTY),
        ("\u3164\u2800\u2060".encode(), TextReason.EMPTY),
        (b"&nbsp;&amp;#8203;&amp;nbsp;", TextReason.EMPTY),
        ("café".encode("latin-1"), TextReason.NOT_UTF8),
        ("a cat".encode("utf-16"), TextReason.NOT_UTF8),
        ("a cat".encode("utf-16-le"), TextReason.NOT_UTF8),  # each byte of it is UTF-8 too
        ("a cat".encode("utf-16-be"), TextReason.NOT_UTF8),
        ("a cat".encode("utf-32-le"), TextReason.NOT_UTF8),
        (b"\xed\xa0\x80", TextReason.NOT_UTF8),  # a lone surrogate
        (b"x" * 1000, None),
        ("🙂".encode(), None),
        (b"x" * 1001, TextReason.TOO_LONG),
        (b" " * 1001, TextReason.TOO_LONG),
        (b"\xc2\x80" * 500, TextReason.TOO_LONG),  # 500 signs of three bytes each
    ],
)
def test_texts_that_cannot_be_used(data: bytes | None, reason: TextReason | None) -> None:
    found = read_web_text(data, 1000)
    assert found.reason == reason
    assert (found.text is None) == (reason is not None)


BROKEN = st.sampled_from(
    ["&", "amp;", "#39;", "&lt;", "&#x200b;", "\x1b[", *"Ã©â€\x99\x85\u00a0ﬁ \ufffd;a\u0301م👩"]
) | st.sampled_from("\u200b\u200c\u200d\ufe0f\ufeff")


@given(
    st.binary(max_size=80)
    | st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace"))
    | st.lists(BROKEN, max_size=20).map(lambda parts: "".join(parts).encode())
)
def test_any_text_comes_out_harmless(data: bytes) -> None:
    web = read_web_text(data, 100)
    assert (web.text is None) == (web.reason is not None)
    if web.text is not None:
        assert len(web.text.encode()) <= 100
        assert web.text == " ".join(web.text.split()) != ""
        shaping = "\u200c\u200d\u070f\u06dd"  # joiners; signs around numbers, which are seen
        assert visible(web.text.translate(dict.fromkeys(map(ord, shaping)))) == re.sub(
            f"[{shaping}]", "", web.text
        )
        again = read_web_text(web.text.encode(), 100)
        assert (again.text, again.notes) == (web.text, [])


@pytest.mark.parametrize(
    "text",
    [
        "&" + "amp;" * 2499,
        "&am" * 1500 + "&#112;" + ";" * 1500,
        "&NotEqualTilde;" * 660,
        "Ã© 日本" * 900,
        "í\u00a0½" * 1600,
        "\u0323\u0301" * 2400,  # marks that NFC sorts
        "م\u200c" * 2500,
        "\U0001f3f4\U000e0067\U000e0062" * 800,
        "\x1b[;;" * 2500,
        "\x92a" * 3300,
    ],
    ids=lambda text: ascii(text[:8]),
)
def test_a_text_cannot_take_long(text: str) -> None:
    """Up to 25 ms on a slow machine for the longest that recipes allow."""
    begin = time.process_time()
    read_web_text(text.encode(), 10_000)
    assert time.process_time() - begin < 1


def test_what_is_nested_without_end_is_left_in_the_end() -> None:
    nested = "p"
    for _ in range(400):
        nested = "".join(f"&#{ord(character)};" for character in nested[:1]) + nested[1:]
        nested = f"&am{nested};"
    begin = time.process_time()
    assert clean_text(nested)
    assert time.process_time() - begin < 1


def test_real_titles_lose_nothing_but_their_faults(data_dir: Path) -> None:
    """Drawings' titles as their authors typed them: only those with a fault are changed."""
    tars = sorted((data_dir / "noisy_real").rglob("*.tar"))
    texts = [
        data.decode() for tar in tars for name, data in read_members(tar) if name.endswith(".txt")
    ]
    faulty = 0
    for written in texts:
        line = " ".join(unicodedata.normalize("NFC", written).split())
        cleaned = clean_text(written)
        if re.search(r"&#?\w+;", written):
            faulty += 1
            assert not re.search(r"&#?\w+;", cleaned)
            assert cleaned != line
        elif visible(line) == line:
            assert cleaned == line
    assert len(texts) > 1000
    assert 0 < faulty < len(texts) / 100
