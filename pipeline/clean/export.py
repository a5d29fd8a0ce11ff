"""Export: the kept texts of a sample, as a member of a clean shard."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from PIL import Image

from pipeline.config import Config
from shards.schema import SampleRow, TextRow
from shards.writer import CleanSample

JPEG_QUALITY = 92
EXTENSIONS = {"jpeg": "jpg", "png": "png", "webp": "webp", "gif": "gif"}


class WriteConfig(Config):
    """What a clean shard holds."""

    clean: Literal["tar", "none"] = "tar"
    images: Literal["original", "jpeg"] = "original"
    text_policy: Literal["web_first", "best", "random"] = "web_first"


def encode_jpeg(image: Image.Image) -> bytes:
    """Encode a picture again, without its metadata."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, comment=b"")  # else the original's is kept
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a clean sample comes from: its input shard, and the run that cleaned it."""

    shard: str
    fingerprint: str
    seed: int


def clean_sample(
    facts: SampleRow,
    kept: Sequence[TextRow],
    image: bytes,
    config: WriteConfig,
    source: Provenance,
) -> CleanSample:
    """Build the clean form of one sample from its row, its kept texts and its image bytes."""
    key, image_format = cast(str, facts["key"]), cast(str, facts["format"])  # an ok sample has both
    seed = f"{source.seed}/{source.shard}/{key}"
    chosen = choose_text(kept, config.text_policy, seed)
    if config.images == "jpeg":
        extension, sha256 = "jpg", None
    else:
        extension, sha256 = EXTENSIONS[image_format], facts.get("sha256")
    record = {
        "key": key,
        "shard": source.shard,
        "texts": [{name: row[name] for name in ("text", "origin", "itm", "itc")} for row in kept],
        "source": facts["meta"],
        "run": source.fingerprint,
    }
    return CleanSample(key, extension, image, record, chosen["text"], sha256)


def choose_text(kept: Sequence[TextRow], policy: str, seed: str) -> TextRow:
    """Choose the one text of KEY.txt among the kept ones."""
    if policy == "random":
        draw = hashlib.sha256(seed.encode()).digest()
        return kept[int.from_bytes(draw[:8]) % len(kept)]
    if policy == "web_first" and kept[0]["origin"] == "web":
        return kept[0]
    return max(kept, key=lambda row: cast(float, row["itm"]))  # kept: it has a score
