"""Labelled pairs, out of WebDataset tars: KEY.png or another image, KEY.txt, and KEY.json.

Pictures are decoded a batch ahead; only their features, texts and scores are kept.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from models.blip.preprocess import Preprocess
from pipeline.config import Config
from pipeline.media.ahead import load_batches
from pipeline.media.pictures import resized
from shards.inputs.listing import list_inputs
from shards.inputs.reader import RawSample, State
from shards.inputs.samples import read_samples
from shards.inputs.shard import InputShard
from shards.inputs.sidecar import read_sidecar
from shards.reasons import SampleReason
from shards.training.annotation import annotated_texts
from shards.training.left_out import Unusable

Meta = Mapping[str, Any]

_SHARD_FAULTS = {
    State.TRUNCATED: SampleReason.SHARD_TRUNCATED.value,
    State.CORRUPT: SampleReason.SHARD_CORRUPT.value,
    State.NOT_A_TAR: "shard_not_tar",
    State.COMPRESSED: "shard_compressed",
    State.EMPTY: "shard_empty",
}


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """A picture's bytes, the texts that belong to it, and its sidecar.

    `key` is SHARD/KEY. Where `reason` is set the sample cannot be used. `share_read`: of the bytes
    of all tars, up to here; None where samples do not come out of tars.
    """

    key: str
    image: bytes
    texts: tuple[str, ...]
    meta: Meta = field(default_factory=dict)
    reason: str | None = None
    share_read: float | None = None


class EvaluateConfig(Config):
    """How a checkpoint is run; none of it but `dtype` and `max_tokens` changes the numbers."""

    batch_size: int = Field(default=32, ge=1, description="pictures in one pass of the model")
    max_tokens: int = Field(default=35, ge=3, le=512, description="special tokens included")
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = "cpu"


USUAL = EvaluateConfig()


def read_pairs(urls: Sequence[str], limit: int | None = None) -> Iterator[LabelledPair]:
    """Read the samples of tars (files, folders, patterns) in order, unusable ones too.

    The texts are the sidecar's list `references` or `texts`, or else KEY.txt. A damaged shard gives
    what stands before the damage, and a row that says so.
    """
    return islice(_read_shards(list_inputs(urls)), limit)


def _read_shards(shards: Sequence[InputShard]) -> Iterator[LabelledPair]:
    reason: str | None = None
    for shard, sample, share in read_samples(shards):
        if isinstance(sample, RawSample):
            reason = sample.reason
            yield replace(_labelled(f"{shard.shard}/{sample.key}", sample), share_read=share)
            continue
        fault = _SHARD_FAULTS.get(sample.state)
        if fault is not None and fault != reason:  # the sample that was cut has said it already
            yield LabelledPair(shard.shard, b"", (), reason=fault, share_read=share)
        reason = None


def _labelled(key: str, raw: RawSample) -> LabelledPair:
    if raw.reason is not None:
        return LabelledPair(key, b"", (), reason=raw.reason)
    if raw.image is None:
        return LabelledPair(key, b"", (), reason=SampleReason.IMAGE_MISSING)
    sidecar = read_sidecar(raw.meta)
    if sidecar.meta is None and sidecar.notes:  # labels stand in it: what they are is not known
        return LabelledPair(key, b"", (), reason=sidecar.notes[0])
    meta: dict[str, Any] = json.loads(sidecar.meta) if sidecar.meta else {}
    texts, reason = _references(meta), None
    if not texts:
        annotated, reason = annotated_texts(raw)
        texts = tuple(row.text for row in annotated)
    return LabelledPair(key, raw.image, texts, meta, reason or None)


def _references(meta: Meta) -> tuple[str, ...]:
    listed = meta.get("references")
    texts = [text for text in listed if isinstance(text, str)] if isinstance(listed, list) else []
    squeezed = (" ".join(text.encode("utf-8", "replace").decode().split()) for text in texts)
    return tuple(text for text in squeezed if text)


def batches(
    pairs: Iterable[LabelledPair],
    preprocess: Preprocess,
    size: int,
    left_out: Counter[str],
) -> Iterator[tuple[list[LabelledPair], Tensor]]:
    """Decode and resize pairs, up to `size` at a time, with uint8 (B, 3, H, W); count the rest."""

    def look(pair: LabelledPair) -> Tensor | str:
        looked = pair.reason or resized(pair.image, preprocess)
        if isinstance(looked, Tensor | Unusable):
            return looked
        named = f"picture {pair.key}" if pair.key.isdecimal() else pair.key
        return Unusable(looked, named)

    for batch, pictures in load_batches(pairs, look, size, left_out, lambda pair: len(pair.image)):
        yield batch, torch.stack(pictures)
