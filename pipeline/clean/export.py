"""Export: the kept texts of a sample, as a member of a clean shard."""

import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from PIL import Image
from pydantic import AfterValidator

from pipeline.config import Config
from shards.schema import SampleRow, TextRow
from shards.writer import CleanSample

JPEG_QUALITY = 92
EXTENSIONS = {"jpeg": "jpg", "png": "png", "webp": "webp", "gif": "gif"}


POLICIES = ("web_first", "best", "random")
_FIRST = "first:"
_LISTED = ("text", "origin", "itm", "itc")  # of a kept text, in KEY.json


def check_policy(policy: str) -> str:
    """Return a policy of the one text of a sample; ValueError for what is none."""
    origins = policy.removeprefix(_FIRST).split(",") if policy.startswith(_FIRST) else []
    if policy in POLICIES or (all(origins) and origins):
        return policy
    raise ValueError(f"expected {', '.join(POLICIES)}, or first:ORIGIN,ORIGIN,…")


TextPolicy = Annotated[str, AfterValidator(check_policy)]


class WriteConfig(Config):
    """What a clean shard holds."""

    clean: Literal["tar", "none"] = "tar"
    images: Literal["original", "jpeg"] = "original"
    text_policy: TextPolicy = "web_first"


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
        "texts": [{name: row.get(name) for name in _LISTED} for row in kept],
        "source": facts["meta"],
        "run": source.fingerprint,
    }
    return CleanSample(key, extension, image, record, chosen["text"], sha256)


def choose_text(kept: Sequence[TextRow], policy: str, seed: str) -> TextRow:
    """Choose the one text of KEY.txt among the kept ones.

    `web_first` takes the web's, or else the best; `first:web,human` the best of the first of these
    origins that is there, or else of all. The best has the highest `score`, or `itm` without one.
    """
    if policy == "random":
        draw = hashlib.sha256(seed.encode()).digest()
        return kept[int.from_bytes(draw[:8]) % len(kept)]
    if policy == "web_first" and kept[0]["origin"] == "web":
        return kept[0]
    for origin in policy.removeprefix(_FIRST).split(",") if policy.startswith(_FIRST) else ():
        if of_origin := [row for row in kept if row["origin"] == origin]:
            return max(of_origin, key=_score)
    return max(kept, key=_score)


def _score(row: Mapping[str, Any]) -> float:
    """Return what a text is chosen by; one that has no score comes last."""
    score = row["score"] if "score" in row else row["itm"]
    return -math.inf if score is None or math.isnan(score) else score
