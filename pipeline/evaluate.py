"""Evaluate: how good are a checkpoint's retrieval, captions and scores on labelled pairs?

Labelled pairs come out of WebDataset tars: KEY.png or another image, KEY.txt, and KEY.json. What
cannot be used is counted by its reason (`left_out`), and never ends an evaluation. Pictures are
decoded a batch at a time; only their features, texts and scores are kept.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from models import checkpoint
from models.config import resolve_dtype
from models.decoding import Decoding
from models.framing import Framed
from models.preprocess import Preprocess
from models.roles.captioner import Captioner
from models.roles.filter import Filter
from models.roles.retrieval import TEXTS_AT_ONCE, Images, Retriever, Texts
from models.tokenizer import normalise
from pipeline import metrics
from pipeline.decode import Limits, Refusal, decode
from pipeline.screen import read_meta
from pipeline.toy_world import is_true, scene_from_truth
from shards.annotation import annotated_texts
from shards.listing import list_inputs
from shards.reader import RawSample, ShardReader, ShardState, State, open_shard
from shards.schema import SampleReason

Meta = Mapping[str, Any]
IsRight = Callable[[str, Meta], bool | None]
"""Tells whether a caption is true, by the sidecar; None where that cannot be told."""
Label = Callable[["LabelledPair"], bool | None]
"""Tells whether a pair's texts belong to its picture; None where that cannot be told."""

NO_LABEL = "label_missing"

# a labelled picture counts, however small or long it is
_LIMITS = Limits(min_side=1, max_pixels=50_000_000, max_aspect=float("inf"))
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

    `key` is SHARD/KEY. Where `reason` is set the sample cannot be used.
    """

    key: str
    image: bytes
    texts: tuple[str, ...]
    meta: Meta = field(default_factory=dict)
    reason: str | None = None


class EvaluateConfig(BaseModel):
    """How a checkpoint is run; none of it but `dtype` and `max_tokens` changes the numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: int = Field(default=32, ge=1, description="pictures in one pass of the model")
    max_tokens: int = Field(default=35, ge=3, le=512, description="special tokens included")
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = "cpu"


_USUAL = EvaluateConfig()


def read_pairs(urls: Sequence[str], limit: int | None = None) -> Iterator[LabelledPair]:
    """Read the samples of tars (files, folders, patterns) in order, unusable ones too.

    The texts are the sidecar's list `references` or `texts`, or else KEY.txt. A damaged shard gives
    what stands before the damage, and a row that says so.
    """
    pairs = (pair for shard in list_inputs(urls) for pair in _read_shard(shard.shard, shard.url))
    return islice(pairs, limit)


def _read_shard(name: str, url: str) -> Iterator[LabelledPair]:
    reason: str | None = None
    with open_shard(url) as file:
        reader = ShardReader(file)
        for raw in reader:
            reason = raw.reason
            yield _labelled(f"{name}/{raw.key}", raw)
        fault = _fault(reader.state)
    if fault is not None and fault != reason:  # the sample that was cut has said it already
        yield LabelledPair(name, b"", (), reason=fault)


def _fault(found: ShardState) -> str | None:
    return None if found.state is State.COMPLETE else _SHARD_FAULTS[found.state]


def _labelled(key: str, raw: RawSample) -> LabelledPair:
    if raw.reason is not None:
        return LabelledPair(key, b"", (), reason=raw.reason)
    if raw.image is None:
        return LabelledPair(key, b"", (), reason=SampleReason.IMAGE_MISSING)
    text, _, notes = read_meta(raw.meta)
    if notes:  # labels stand in it: what it does not say is not known
        return LabelledPair(key, b"", (), reason=notes[0])
    meta: dict[str, Any] = json.loads(text) if text else {}
    texts, reason = _references(meta), None
    if not texts:
        found, reason = annotated_texts(raw)
        texts = tuple(one.text for one in found)
    return LabelledPair(key, raw.image, texts, meta, reason or None)


def _references(meta: Meta) -> tuple[str, ...]:
    listed = meta.get("references")
    texts = [one for one in listed if isinstance(one, str)] if isinstance(listed, list) else []
    squeezed = (" ".join(one.encode("utf-8", "replace").decode().split()) for one in texts)
    return tuple(one for one in squeezed if one)


def evaluate_retrieval(
    folder: str | Path,
    pairs: Iterable[LabelledPair],
    config: EvaluateConfig = _USUAL,
    *,
    k: int = 256,
) -> dict[str, Any]:
    """Evaluate the retrieval of a filter or pre-training folder; see `measure_retrieval`."""
    return measure_retrieval(open_retriever(folder, config), pairs, config.batch_size, k=k)


def evaluate_captioner(
    folder: str | Path,
    pairs: Iterable[LabelledPair],
    decoding: Decoding,
    config: EvaluateConfig = _USUAL,
    *,
    seed: int = 0,
    is_right: IsRight | None = None,
) -> dict[str, Any]:
    """Evaluate a captioner folder; see `measure_captioner`."""
    captioner = Captioner.load(
        folder, decoding=decoding, seed=seed, dtype=config.dtype, device=config.device
    )
    return measure_captioner(captioner, pairs, config.batch_size, is_right=is_right)


def evaluate_filter(
    folder: str | Path,
    pairs: Iterable[LabelledPair],
    config: EvaluateConfig = _USUAL,
    *,
    threshold: float = 0.5,
    label: Label | None = None,
) -> dict[str, Any]:
    """Evaluate a filter folder; see `measure_filter`."""
    scorer = Filter.load(
        folder, max_tokens=config.max_tokens, dtype=config.dtype, device=config.device
    )
    return measure_filter(scorer, pairs, config.batch_size, threshold=threshold, label=label)


def open_retriever(folder: str | Path, config: EvaluateConfig = _USUAL) -> Retriever:
    """Load a filter folder, or the match network that is part of a pre-training folder."""
    if checkpoint.describe(Path(folder)).role != "pretrain":
        return Retriever.load(
            folder, max_tokens=config.max_tokens, dtype=config.dtype, device=config.device
        )
    dtype = resolve_dtype(config.dtype, config.device)
    loaded = checkpoint.load(Path(folder), "pretrain", dtype=dtype, device=config.device)
    return Retriever(loaded, config.max_tokens, dtype)


def measure_retrieval(
    retriever: Retriever, pairs: Iterable[LabelledPair], batch_size: int = 32, *, k: int = 256
) -> dict[str, Any]:
    """Compute recall both ways, by ITC alone (`itc`) and with the best k put in order by ITM.

    Texts that are equal to the model belong to every image that carries one of them. `itm` is the
    original's score, the logit of a match plus the cosine.
    """
    left_out: Counter[str] = Counter()
    numbers: dict[str, int] = {}  # of each text, as the model reads it
    texts_of: list[set[int]] = []
    seen: list[Images] = []
    for batch, pictures in _batches(pairs, retriever.preprocess, batch_size, left_out):
        seen.append(retriever.look(pictures))
        for pair in batch:
            own = map(normalise, pair.texts)
            texts_of.append({numbers.setdefault(text, len(numbers)) for text in own})
    counts = {"images": len(texts_of), "texts": len(numbers), "left_out": dict(left_out)}
    if not seen:
        nothing = metrics.retrieval([], [], [])
        return {**counts, "k": k, "itc": nothing, "itm": nothing}
    images = Images(torch.cat([one.states for one in seen]), torch.cat([one.unit for one in seen]))
    seen.clear()
    texts = _read_texts(retriever, list(numbers))
    cosines = (images.unit @ texts.unit.T).cpu().numpy()
    ranking = retriever.rank(images, texts, k)
    to_text, to_image = ranking.to_text.cpu().numpy(), ranking.to_image.cpu().numpy()
    return {
        **counts,
        "k": k,
        "itc": metrics.retrieval(cosines, cosines.T, texts_of),
        "itm": metrics.retrieval(to_text, to_image, texts_of),
    }


def _read_texts(retriever: Retriever, texts: Sequence[str]) -> Texts:
    """Read many texts, some at a time, and put them under one length."""
    parts = [
        retriever.read(texts[start : start + TEXTS_AT_ONCE])
        for start in range(0, len(texts), TEXTS_AT_ONCE)
    ]
    longest = max(part.framed.ids.shape[1] for part in parts)

    def widen(rows: Tensor) -> Tensor:  # what stands under the mask means nothing
        return functional.pad(rows, (0, longest - rows.shape[1]))

    ids = torch.cat([widen(part.framed.ids) for part in parts])
    mask = torch.cat([widen(part.framed.mask) for part in parts])
    return Texts(Framed(ids, mask), torch.cat([part.unit for part in parts]))


def measure_captioner(
    captioner: Captioner,
    pairs: Iterable[LabelledPair],
    batch_size: int = 32,
    *,
    is_right: IsRight | None = None,
) -> dict[str, Any]:
    """Compare one written caption per picture with its references.

    With `is_right`, `right` is the share that it finds true of the `judged` ones.
    """
    left_out: Counter[str] = Counter()
    written: list[str] = []
    references: list[tuple[str, ...]] = []
    verdicts: list[bool] = []
    for batch, pictures in _batches(pairs, captioner.preprocess, batch_size, left_out):
        found = captioner.caption(pictures, [pair.key for pair in batch], 1)
        for pair, (caption,) in zip(batch, found, strict=True):
            written.append(caption.text)
            references.append(pair.texts)
            verdict = is_right(caption.text, pair.meta) if is_right else None
            verdicts += [] if verdict is None else [verdict]
    numbers: dict[str, Any] = {
        "images": len(written),
        "left_out": dict(left_out),
        "cider": metrics.cider(written, references),
        "bleu_4": metrics.bleu_4(written, references),
        "exact_match": metrics.exact_match(written, references),
    }
    if is_right is not None:
        right = sum(verdicts) / len(verdicts) if verdicts else None
        numbers |= {"judged": len(verdicts), "right": right}
    return numbers


def measure_filter(
    scorer: Filter,
    pairs: Iterable[LabelledPair],
    batch_size: int = 32,
    *,
    threshold: float = 0.5,
    label: Label | None = None,
) -> dict[str, Any]:
    """Compare ITM probabilities with labels: which texts are right, and which does it keep?

    `label` (default: `toy_label`) judges a pair, with all its texts. `noise_before` and
    `noise_after` are the shares of wrong texts among all and among the kept; `noise_ratio` is the
    share that is filtered out, which the paper calls so. Texts without a finite score, as many as
    `score_not_finite`, are not kept, and have no part in `roc_auc`.
    """
    told = label or toy_label
    known = (pair if told(pair) is not None else _without_label(pair) for pair in pairs)
    left_out: Counter[str] = Counter()
    scores: list[float] = []
    labels: list[bool] = []
    images = 0
    for batch, pictures in _batches(known, scorer.preprocess, batch_size, left_out):
        images += len(batch)
        found = scorer.score(pictures, [pair.texts for pair in batch])
        for pair, own in zip(batch, found, strict=True):
            scores += [score.itm for score in own]
            labels += [bool(told(pair))] * len(own)
    counts = {"images": images, "texts": len(scores), "left_out": dict(left_out)}
    return counts | _filtered(np.array(scores), np.array(labels, dtype=bool), threshold)


def _filtered(
    scores: NDArray[np.float64], labels: NDArray[np.bool_], threshold: float
) -> dict[str, Any]:
    kept, finite = metrics.at_threshold(scores, threshold), np.isfinite(scores)
    precision = metrics.precision(kept, labels)
    share = float(kept.mean()) if len(kept) else None
    return {
        "threshold": threshold,
        "roc_auc": metrics.roc_auc(scores[finite], labels[finite]),
        "precision": precision,
        "recall": metrics.recall(kept, labels),
        "kept": share,
        "noise_ratio": None if share is None else 1 - share,
        "noise_before": 1 - float(labels.mean()) if len(labels) else None,
        "noise_after": None if precision is None else 1 - precision,
        "score_not_finite": int((~finite).sum()),
    }


def toy_label(pair: LabelledPair) -> bool | None:
    """Tell by the toy world's sidecar whether a pair's text is true of its picture."""
    truth = pair.meta.get("toy")
    noisy = truth.get("is_noisy") if isinstance(truth, dict) else None
    return not noisy if isinstance(noisy, bool) else None


def toy_is_right(text: str, meta: Meta) -> bool | None:
    """Tell by the toy world's sidecar whether a caption is true of its picture."""
    try:
        scene = scene_from_truth(meta["toy"])
    except (KeyError, TypeError, ValueError):  # a sidecar of something else
        return None
    return is_true(text, scene)


def _without_label(pair: LabelledPair) -> LabelledPair:
    return replace(pair, reason=pair.reason or NO_LABEL)


def _batches(
    pairs: Iterable[LabelledPair],
    preprocess: Preprocess,
    size: int,
    left_out: Counter[str],
) -> Iterator[tuple[list[LabelledPair], Tensor]]:
    """Decode and resize pairs, up to `size` at a time, with uint8 (B, 3, H, W); count the rest."""
    batch: list[LabelledPair] = []
    pictures: list[Tensor] = []
    for pair in pairs:
        found = pair.reason or decode(pair.image, _LIMITS)
        if isinstance(found, str | Refusal):
            left_out[str(found if isinstance(found, str) else found.reason)] += 1
            continue
        batch.append(pair)
        pictures.append(preprocess.resize(found.image))
        if len(batch) == size:
            yield batch, torch.stack(pictures)
            batch, pictures = [], []
    if batch:
        yield batch, torch.stack(pictures)
