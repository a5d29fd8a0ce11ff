"""What a clean sample holds: the chosen text, the record, and the picture."""

import io
from typing import Any

import pytest
from PIL import Image

from pipeline.clean.export import (
    EXTENSIONS,
    Provenance,
    WriteConfig,
    choose_text,
    clean_sample,
    encode_jpeg,
)
from pipeline.media.decode import Decoded, DecodeLimits, decode
from shards.schema import SampleRow, TextRow

SOURCE = Provenance(shard="web%2F00000", fingerprint="f" * 64, seed=7)
LIMITS = DecodeLimits(min_side=1, max_pixels=10**6, max_aspect=100)


def text(words: str, origin: str, itm: float) -> TextRow:
    return {"text_no": 0, "author": "d", "text": words, "origin": origin, "itm": itm, "itc": 0.25}


WEB = text("the web's", "web", 0.6)
GOOD = text("a good one", "synthetic", 0.7)
BEST = text("the best", "synthetic", 0.9)
FACTS: SampleRow = {"key": "a/b.c", "format": "png", "meta": '{"n": 1}', "index": 0}


@pytest.mark.parametrize(
    ("policy", "kept", "chosen"),
    [
        ("web_first", [WEB, GOOD, BEST], WEB),
        ("web_first", [GOOD, BEST], BEST),
        ("web_first", [text("x", "imported", 0.1), BEST], BEST),
        ("best", [WEB, GOOD, BEST], BEST),
        ("best", [BEST, GOOD, WEB], BEST),
        ("best", [WEB], WEB),
        ("best", [{**WEB, "score": 0.9}, {**BEST, "score": 0.1}], {**WEB, "score": 0.9}),
        ("best", [{**WEB, "score": None}, {**GOOD, "score": 0.1}], {**GOOD, "score": 0.1}),
        ("first:synthetic,web", [WEB, GOOD, BEST], BEST),
        ("first:human,web", [WEB, GOOD, BEST], WEB),
        ("first:human", [WEB, GOOD, BEST], BEST),
        ("best", [GOOD, text("a tie", "synthetic", 0.7)], GOOD),
    ],
)
def test_text_policies(policy: str, kept: list[Any], chosen: Any) -> None:
    assert choose_text(kept, policy, "seed") == chosen


@pytest.mark.parametrize("policy", ["worst", "first:", "first:web,", "first", ""])
def test_what_is_no_policy_is_told(policy: str) -> None:
    with pytest.raises(ValueError, match="expected web_first, best, random, or first:ORIGIN"):
        WriteConfig(text_policy=policy)


def test_random_is_fixed_by_seed_and_sample_and_takes_all() -> None:
    kept = [WEB, GOOD, BEST]
    drawn = [choose_text(kept, "random", f"0/s/{n}")["text"] for n in range(600)]
    assert drawn == [choose_text(kept, "random", f"0/s/{n}")["text"] for n in range(600)]
    assert drawn != [choose_text(kept, "random", f"1/s/{n}")["text"] for n in range(600)]
    assert all(150 < drawn.count(row["text"]) < 250 for row in kept)


def test_random_depends_on_seed_shard_and_key() -> None:
    config = WriteConfig(text_policy="random")
    kept = [text(str(n), "synthetic", 0.9) for n in range(1000)]

    def chosen(seed: int, shard: str, key: str) -> str:
        source = Provenance(shard, "f", seed)
        return clean_sample({**FACTS, "key": key}, kept, b"", config, source).text

    first = chosen(0, "s", "k")
    assert chosen(0, "s", "k") == first
    assert first not in {chosen(1, "s", "k"), chosen(0, "t", "k"), chosen(0, "s", "l")}


def test_the_record() -> None:
    written = clean_sample(FACTS, [WEB, BEST], b"image", WriteConfig(), SOURCE)
    assert (written.key, written.ext, written.image, written.text) == (
        "a/b.c",
        "png",
        b"image",
        "the web's",
    )
    assert written.record == {
        "key": "a/b.c",
        "shard": "web%2F00000",
        "texts": [
            {"text": "the web's", "origin": "web", "itm": 0.6, "itc": 0.25},
            {"text": "the best", "origin": "synthetic", "itm": 0.9, "itc": 0.25},
        ],
        "source": '{"n": 1}',
        "run": "f" * 64,
    }


@pytest.mark.parametrize(("images", "sha256"), [("original", "a1"), ("jpeg", None)])
def test_the_hash_is_that_of_the_original(images: Any, sha256: str | None) -> None:
    facts: SampleRow = {**FACTS, "sha256": "a1"}
    assert clean_sample(facts, [WEB], b"", WriteConfig(images=images), SOURCE).sha256 == sha256


def test_a_sample_without_a_sidecar() -> None:
    found = clean_sample({**FACTS, "meta": None}, [WEB], b"", WriteConfig(), SOURCE)
    assert found.record["source"] is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_the_extension_follows_the_content(noise: Any, encode: Any, kind: str) -> None:
    found = decode(encode(noise(), kind), LIMITS)
    assert isinstance(found, Decoded)
    facts: SampleRow = {**FACTS, "format": found.format}
    extension = clean_sample(facts, [WEB], b"", WriteConfig(), SOURCE).ext
    assert extension == {"JPEG": "jpg"}.get(kind, kind.lower())
    assert clean_sample(facts, [WEB], b"", WriteConfig(images="jpeg"), SOURCE).ext == "jpg"
    assert set(EXTENSIONS) == {"jpeg", "png", "webp", "gif"}


def test_a_picture_encoded_again(data_dir: Any) -> None:
    path = next(iter(sorted((data_dir / "pairs" / "images").glob("*.jpg"))))
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    with Image.open(io.BytesIO(encode_jpeg(image))) as again:
        assert (again.format, again.mode, again.size) == ("JPEG", "RGB", image.size)
        pairs = zip(again.tobytes(), image.tobytes(), strict=True)
        assert sum(abs(a - b) for a, b in pairs) / (3 * image.width * image.height) < 4


@pytest.mark.parametrize("size", [50, 70_000])
def test_metadata_is_left_out(noise: Any, encode: Any, size: int) -> None:
    """A GIF's comment may be longer than a JPEG can hold."""
    exif = Image.Exif()
    exif[0x010E] = "SECRET"
    originals = [
        encode(noise(), "PNG", exif=exif, icc_profile=b"SECRET" * 9),
        encode(noise().convert("P"), "GIF", comment=b"SECRET" * (size // 6)),
    ]
    if size == 50:
        originals.append(encode(noise(), "JPEG", exif=exif, comment=b"SECRET", dpi=(7, 7)))
    for data in originals:
        found = decode(data, LIMITS)
        assert isinstance(found, Decoded)
        assert b"SECRET" in data
        assert b"SECRET" not in encode_jpeg(found.image)
