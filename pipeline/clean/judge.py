"""Decide which texts are kept, from their facts alone: no model, no picture.

The rules about the text itself come first and stay whatever the threshold; what is left is kept
where `itm >= float32(threshold of its origin)`, or another score is, where `judge.by` names one.
CapFilt's rule is a threshold of 0.5 on the probability of a match (BLIP, section 4.3; the number is
the authors' own answer, BLIP issue 46).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, StringConstraints, field_validator

from pipeline.config import Config
from shards.reasons import DecisionReason
from shards.schema import DECISIONS, TEXTS

Mask = NDArray[np.bool_]
Scores = NDArray[np.float32]
Word = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]

# The columns of the texts that are looked at, and no others.
JUDGED = pa.schema(
    [
        TEXTS.field(name)
        for name in ("shard", "index", "text_no", "origin", "author", "text", "itm", "itc")
    ]
)
Rule = tuple[DecisionReason, Mask]

_OPEN = (
    DecisionReason.KEPT,
    DecisionReason.ITM_BELOW_THRESHOLD,
    DecisionReason.SCORE_BELOW_THRESHOLD,
    DecisionReason.NOT_PREFERRED,
)

_OWN_SCORES = ("itm", "itc")  # columns of the texts
DEFAULT_THRESHOLD = {"web": 0.5, "synthetic": 0.5}


class JudgeConfig(Config):
    """Thresholds on a score (the probability of a match), by origin, and rules about the text."""

    by: str = Field(
        default="itm",
        exclude_if=lambda by: by == "itm",  # so that runs of older versions keep their fingerprint
        description="the score that decides: itm, itc, or NAME.SCORE",
    )
    threshold: dict[str, FiniteFloat] = Field(default_factory=DEFAULT_THRESHOLD.copy)
    prefer: tuple[str, ...] = Field(
        default=(),
        exclude_if=lambda origins: not origins,
        description="origins: of a sample's texts that pass, those of the first alone stay",
    )
    min_words: int = Field(default=1, ge=1)
    max_repeats: int | None = Field(
        default=None, ge=0, description="times one word may follow itself"
    )
    banned_words: tuple[Word, ...] = ()

    @field_validator("by")
    @classmethod
    def _check_by(cls, by: str) -> str:
        scorer, dot, score = by.partition(".")
        if by in _OWN_SCORES or (dot and scorer.isidentifier() and score.isidentifier()):
            return by
        raise ValueError("expected itm, itc, or NAME.SCORE of a scorer")

    @field_validator("threshold")
    @classmethod
    def _complete(cls, named: dict[str, float]) -> dict[str, float]:
        """Leave an origin that is not given at its default, as with every other key."""
        return DEFAULT_THRESHOLD | named


def judge(texts: pa.Table, config: JudgeConfig, score: Scores | None = None) -> pa.Table:
    """Judge every row of a texts table; the decisions come in the order of the texts.

    Of its columns, those of `JUDGED` are enough. `score` is what decides, where it is no column of
    the texts; NaN where a text has none. Raises ValueError where a text's origin has no threshold.
    """
    if score is None:
        score = texts[config.by].to_numpy().astype(np.float32)
    reasons = _first_that_holds(_rules(texts, config, score), len(texts))
    keep = reasons == DecisionReason.KEPT
    if config.prefer:
        preferred = of_first_origin(texts["origin"], _samples_of(texts), keep, config.prefer)
        reasons[keep & ~preferred] = DecisionReason.NOT_PREFERRED
        keep &= preferred
    columns = {name: texts[name] for name in ("shard", "index", "text_no")}
    columns |= {"keep": pa.array(keep), "reason": pa.array(reasons, pa.string())}
    return pa.table(columns).select(DECISIONS.names).cast(DECISIONS)


def of_first_origin(
    origins: pa.ChunkedArray, sample: NDArray[np.int64], keep: Mask, prefer: Sequence[str]
) -> Mask:
    """Mark the texts whose origin is the first of those that their sample keeps texts of.

    `sample` numbers the sample of each text; origins that are not named come last, together.
    """
    ranks = {origin: rank for rank, origin in enumerate(prefer)}
    encoded = origins.combine_chunks().dictionary_encode()
    of_origin = [ranks.get(origin, len(prefer)) for origin in encoded.dictionary.to_pylist()]
    rank = np.array(of_origin, dtype=np.int64)[encoded.indices.to_numpy()]
    best = np.full(int(sample.max(initial=-1)) + 1, len(prefer), dtype=np.int64)
    np.minimum.at(best, sample[keep], rank[keep])
    return np.asarray(rank == best[sample])


def text_reasons(texts: pa.Table, config: JudgeConfig) -> NDArray[np.object_]:
    """Say of each text what is wrong with it, whatever its scores are; `kept` where nothing is."""
    return _first_that_holds(_text_rules(texts, config), len(texts))


def _first_that_holds(rules: Sequence[Rule], count: int) -> NDArray[np.object_]:
    reasons = np.full(count, DecisionReason.KEPT, dtype=object)
    for reason, mask in reversed(rules):
        reasons[mask] = reason
    return reasons


def _rules(texts: pa.Table, config: JudgeConfig, score: Scores) -> list[Rule]:
    """List each reason with the rows it holds for; the first that holds decides."""
    with np.errstate(invalid="ignore"):
        below = score < thresholds_of(texts["origin"], config.threshold)
    too_low = DecisionReason.SCORE_BELOW_THRESHOLD
    if config.by == "itm":
        too_low = DecisionReason.ITM_BELOW_THRESHOLD
    refused, empty, *others = _text_rules(texts, config)
    not_finite = (DecisionReason.SCORE_NOT_FINITE, ~np.isfinite(score))
    return [refused, empty, not_finite, *others, (too_low, below)]


def _text_rules(texts: pa.Table, config: JudgeConfig) -> list[Rule]:
    """List the reasons that lie in the text itself; one that is not there, or empty, comes first.

    A text without an author and without words is what its captioner refused to write.
    """
    folded = pc.utf8_lower(pc.utf8_trim_whitespace(texts["text"])).combine_chunks()
    word_count = pc.list_value_length(pc.utf8_split_whitespace(folded))
    is_empty = _mask(pc.equal(folded, ""))
    has_no_author = _mask(pc.is_null(texts["author"].combine_chunks()))
    return [
        (
            DecisionReason.CAPTION_REFUSED,
            is_empty & has_no_author,
        ),
        (DecisionReason.CAPTION_EMPTY, is_empty),
        (DecisionReason.DUPLICATE_TEXT, _repeated(texts, folded)),
        (DecisionReason.TEXT_TOO_SHORT, _mask(pc.less(word_count, config.min_words))),
        (DecisionReason.REPETITIVE, _matches(folded, _repeat_pattern(config.max_repeats))),
        (DecisionReason.BANNED_WORD, _matches(folded, _word_pattern(config.banned_words))),
    ]


def odd_thresholds(thresholds: Mapping[str, float]) -> list[str]:
    """Say of each threshold outside 0 to 1, which no probability crosses, what it comes to."""
    said = []
    for origin, threshold in sorted(thresholds.items()):
        if 0 <= threshold <= 1:
            continue
        effect = "none of them is kept" if threshold > 1 else "it drops none of them"
        percent = f" For {threshold:g} % give {threshold / 100:g}." if 2 <= threshold <= 100 else ""
        said.append(
            f"the threshold of {origin!r} texts is {threshold:g}, and their scores are "
            f"probabilities from 0 to 1: {effect}.{percent}"
        )
    return said


def thresholds_of(origins: pa.ChunkedArray, thresholds: dict[str, float]) -> NDArray[np.float32]:
    """Look up the threshold of each row's origin, as the float32 that scores are compared in."""
    encoded = origins.combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    unknown = sorted(set(names) - set(thresholds))
    if unknown:
        raise ValueError(
            f"no threshold for texts of origin {', '.join(unknown)}; given: "
            f"{', '.join(sorted(thresholds))}. Add judge.threshold.{unknown[0]}."
        )
    by_code = np.array([thresholds[name] for name in names], dtype=np.float32)
    return by_code[encoded.indices.to_numpy()]


def is_open(reasons: pa.ChunkedArray) -> Mask:
    """Mark the decisions that a threshold makes; any other reason lies in the text itself."""
    return _mask(pc.is_in(reasons, value_set=pa.array(_OPEN, pa.string())))


def _repeated(texts: pa.Table, folded: pa.Array) -> Mask:
    """Mark each text that stands earlier in the same sample already."""
    code = folded.dictionary_encode().indices.to_numpy().astype(np.int64)
    shard = texts["shard"].combine_chunks().dictionary_encode().indices.to_numpy()
    key = np.stack([shard, texts["index"].to_numpy(), code], axis=1)
    _, first = np.unique(key, axis=0, return_index=True)
    repeated = np.ones(len(texts), dtype=bool)
    repeated[first] = False
    return repeated


def _samples_of(texts: pa.Table) -> NDArray[np.int64]:
    """Number the samples that texts are of."""
    shard = texts["shard"].combine_chunks().dictionary_encode().indices.to_numpy()
    places = np.stack([shard, texts["index"].to_numpy()], axis=1)
    return np.unique(places, axis=0, return_inverse=True)[1].reshape(-1)


def _repeat_pattern(max_repeats: int | None) -> re.Pattern[str] | None:
    if max_repeats is None:
        return None
    return re.compile(rf"\b(\w+)(?:\W+\1\b){{{max_repeats + 1}}}")


def _word_pattern(words: tuple[str, ...]) -> re.Pattern[str] | None:
    """Match whole words; \\b would need a letter at both ends, which `c++` has not."""
    if not words:
        return None
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", re.IGNORECASE)


def _matches(folded: pa.Array, pattern: re.Pattern[str] | None) -> Mask:
    """Match row by row: Arrow's own engine has no back-references."""
    if pattern is None:
        return np.zeros(len(folded), dtype=bool)
    return np.array([pattern.search(text) is not None for text in folded.to_pylist()], dtype=bool)


def _mask(array: pa.Array) -> Mask:
    return array.to_numpy(zero_copy_only=False).astype(bool)
