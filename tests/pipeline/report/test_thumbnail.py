"""Thumbnails show the picture, small and upright, and nothing that came along with it."""

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.report.thumbnail import Thumbnail, encode_thumbnail
from tests.support.report_page import Node, cards, page_of, sample, words


def opened(thumbnail: Thumbnail) -> Image.Image:
    kind, _, data = (thumbnail.url or "").partition(",")
    assert kind == "data:image/webp;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.format == "WEBP"
    assert image.size == (thumbnail.width, thumbnail.height)
    return image


def shades(image: Image.Image) -> bytes:
    return image.convert("RGB").resize((8, 4), Image.Resampling.BOX).tobytes()


def test_it_is_the_picture_and_no_longer_than_224(noise: Any) -> None:
    picture = noise(640, 200)
    small = opened(encode_thumbnail(picture))
    assert small.size == (224, 70)
    pairs = zip(shades(picture), shades(small), strict=True)
    assert max(abs(one - other) for one, other in pairs) < 16
    assert picture.size == (640, 200)


def test_small_and_thin_pictures_keep_a_size(noise: Any) -> None:
    assert opened(encode_thumbnail(noise(30, 20))).size == (30, 20)
    assert opened(encode_thumbnail(noise(4000, 2))).size == (224, 1)


def test_nothing_comes_along(noise: Any) -> None:
    picture = noise(60, 40)
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    secrets = {"icc_profile": b"secret" * 30, "exif": exif.tobytes(), "xmp": b"secret"}
    picture.info |= secrets
    small = opened(encode_thumbnail(picture))
    assert not small.info.keys() & secrets.keys()
    assert b"secret" not in base64.b64decode((encode_thumbnail(picture).url or "").split(",")[1])


def images(page: Node) -> list[Image.Image]:
    found: list[Image.Image] = []
    for image in page.all("img"):
        kind, _, data = (image.attributes["src"] or "").partition(",")
        assert kind == "data:image/webp;base64"
        found.append(Image.open(io.BytesIO(base64.b64decode(data))))
        assert image.attributes["alt"]
        size = (image.attributes["width"], image.attributes["height"])
        assert size == tuple(map(str, found[-1].size))
    return found


def test_pictures_that_are_gone_changed_or_dangerous_leave_words(
    make_run: Any, picture: Any, tar_of: Any, tmp_path: Path
) -> None:
    bad = [
        {"status": "rejected", "reason": reason}
        for reason in ("decoder_crash", "decode_timeout", "image_too_large", "image_blank")
    ]
    run = make_run([sample(0.9)], [sample(0.9), sample(0.9)], [sample(0.9)], bad, [sample(0.9)])
    (tmp_path / "web" / "000.tar").unlink()
    changed = tar_of([("s000.png", picture(5)), ("s001.png", picture(1))])
    (tmp_path / "web" / "001.tar").write_bytes(changed)
    (tmp_path / "web" / "002.tar").write_bytes(b"no tar")
    page = page_of(run)
    assert [image.size for image in images(page)] == [(80, 60)] * 3
    frames = {}
    for group in ("kept", "rejected"):
        for card in cards(page, group):
            frame = next(card.all("div"))
            frames[words(card.one("code"))] = words(frame) or "picture"
            assert len(list(frame.all("img"))) == (words(frame) == "")
    assert frames == {
        "000/s000": "the input shard is gone",
        "001/s000": "the input has changed since: another picture is there now",
        "001/s001": "picture",
        "002/s000": "not in the input any more",
        "003/s000": "not decoded, to be safe",
        "003/s001": "not decoded, to be safe",
        "003/s002": "not decoded, to be safe",
        "003/s003": "picture",
        "004/s000": "picture",
    }
