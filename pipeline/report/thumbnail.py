"""Make small pictures of samples, from the input shards that they came in.

Each picture is known by its hash. One that is gone, changed or unfit to be decoded is a value: the
words that stand in its place.
"""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from PIL import Image

from pipeline.clean.screen import Decode
from pipeline.explain.source_images import read_source_images
from pipeline.media.decode import DecodeLimits, DecodeRefusal
from shards.inputs.text import text_source
from shards.reasons import SampleReason
from shards.run.run import Run
from shards.schema import SampleRow

LONGEST_SIDE = 224
_QUALITY = 75
_TIMEOUT_S = 20.0

# Pictures that must not be seen, are known to harm their decoder, or to be too large for it.
_NEVER = {
    SampleReason.IMAGE_BLOCKED,
    SampleReason.DECODER_CRASH,
    SampleReason.DECODE_TIMEOUT,
    SampleReason.IMAGE_TOO_LARGE,
    SampleReason.UNSAFE_MEMBER,
}
_MAX_PIXELS = 50_000_000

SampleId = tuple[str, int]  # SHARD and index, the sample's key in the tables


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture as a data: URL with its size in pixels; or, without one, why."""

    url: str | None = None
    width: int = 0
    height: int = 0
    missing: str = ""


def make_thumbnails(
    run: Run, samples: Sequence[SampleRow], tell: Callable[[str], None]
) -> dict[SampleId, Thumbnail]:
    """Make the thumbnails of samples (rows of the samples table), by SHARD and index."""
    from pipeline.media.guard import Guard

    thumbnails: dict[SampleId, Thumbnail] = {}
    wanted: dict[str, dict[int, str]] = {}
    for sample in samples:
        why = _unfit(sample)
        if why:
            thumbnails[sample["shard"], sample["index"]] = Thumbnail(missing=why)
        else:
            wanted.setdefault(sample["shard"], {})[sample["index"]] = cast(str, sample["sha256"])
    max_pixels = run.identity.get("screen", {}).get("max_pixels", _MAX_PIXELS)
    limits = DecodeLimits(min_side=1, max_pixels=max_pixels, max_aspect=max_pixels)
    inputs, text = {shard.shard: shard for shard in run.inputs}, text_source(run.identity)
    with Guard(_TIMEOUT_S) as guard:
        for number, (shard, digests) in enumerate(sorted(wanted.items()), 1):
            tell(f"reading pictures: shard {number} of {len(wanted)}")
            for index, data in read_source_images(inputs.get(shard), digests, text):
                thumbnails[shard, index] = _thumbnail(data, guard.decode, limits)
    return thumbnails


def _unfit(sample: SampleRow) -> str:
    """Return why a sample's picture is not worth a try; an empty text if it is."""
    if sample["reason"] in _NEVER:
        return "not decoded, to be safe"
    if sample["sha256"] is None:
        return "no picture was read"
    return ""


def _thumbnail(data: bytes | str, decode: Decode, limits: DecodeLimits) -> Thumbnail:
    if isinstance(data, str):
        return Thumbnail(missing=data)
    decoded = decode(data, limits)
    if isinstance(decoded, DecodeRefusal):
        return Thumbnail(missing=f"not shown: {decoded.reason}")
    return encode_thumbnail(decoded.image)


def encode_thumbnail(image: Image.Image) -> Thumbnail:
    """Shrink an RGB picture and encode it anew, without any metadata."""
    small = image.copy()
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=_QUALITY, method=4)
    url = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Thumbnail(url, *small.size)
