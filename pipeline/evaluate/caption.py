"""Evaluate captions: how near do they come to the references?"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from models.decoding.config import Decoding
from models.roles.captioner import BlipCaptioner
from pipeline.evaluate import java_metrics, metrics
from pipeline.evaluate.pairs import USUAL, EvaluateConfig, LabelledPair, Meta, batches
from shards.training.left_out import LeftOut
from shards.training.picture_name import last_number

IsRight = Callable[[str, Meta], bool | None]
"""Tells whether a caption is true, by the sidecar; None where that cannot be told."""


def open_captioner(
    folder: str | Path, decoding: Decoding, config: EvaluateConfig = USUAL, *, seed: int = 0
) -> BlipCaptioner:
    """Load a captioner folder."""
    return BlipCaptioner.load(
        folder, decoding=decoding, seed=seed, dtype=config.dtype, device=config.device
    )


def measure_captioner(
    captioner: BlipCaptioner,
    pairs: Iterable[LabelledPair],
    batch_size: int = 32,
    *,
    is_right: IsRight | None = None,
    results: list[dict[str, Any]] | None = None,
    java: bool = False,
) -> dict[str, Any]:
    """Compare one written caption per picture with its references.

    With `is_right`, `right` is the share that it finds true of the `judged` ones. `results`, if
    given, is filled in the form of the nocaps and COCO servers. Without a reference for each
    picture, as in nocaps' files, the metrics are None. `java`: see `compare`.
    """
    left_out = LeftOut()
    written: list[str] = []
    references: list[tuple[str, ...]] = []
    verdicts: list[bool] = []
    for batch, pictures in batches(pairs, captioner.preprocess, batch_size, left_out):
        captions = captioner.caption(pictures, [pair.key for pair in batch], 1)
        for pair, (caption,) in zip(batch, captions, strict=True):
            written.append(caption.text)
            references.append(pair.texts)
            verdict = is_right(caption.text, pair.meta) if is_right else None
            verdicts += [] if verdict is None else [verdict]
            if results is not None:
                results.append({"image_id": number_of(pair), "caption": caption.text})
    numbers: dict[str, Any] = {"images": len(written), "left_out": left_out}
    numbers |= compare(written, references, java)
    if is_right is not None:
        right = sum(verdicts) / len(verdicts) if verdicts else None
        numbers |= {"judged": len(verdicts), "right": right}
    return numbers


def compare(
    written: Sequence[str], references: Sequence[Sequence[str]], java: bool = False
) -> dict[str, Any]:
    """Compute the metrics of captions; None where a picture has no reference.

    With `java` texts are split by the PTB tokenizer, as for published numbers, and METEOR is there.
    SPICE is left out: it would download models of its own.
    """
    counts: dict[str, Any] = {"tokenizer": "ptb" if java else "words"}
    if not written or not all(references):
        nothing = (*metrics.bleu([], []), "rouge_l", "cider", "exact_match")
        return counts | dict.fromkeys((*nothing, *(("meteor",) if java else ())))
    exact = metrics.exact_match(written, references)
    split: metrics.Split = metrics.words
    if java:
        written, references = _split_ptb(written, references)
        split = str.split
    numbers = {
        **metrics.bleu(written, references, split),
        "rouge_l": metrics.rouge_l(written, references, split),
        "cider": metrics.cider(written, references, split),
        "exact_match": exact,
    }
    meteor = {"meteor": java_metrics.meteor(written, references)} if java else {}
    return counts | numbers | meteor


def _split_ptb(
    written: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """Put blanks between the words of all texts, in one call of the program."""
    flat = java_metrics.split_ptb([*written, *chain.from_iterable(references)])
    rest = iter(" ".join(parts) for parts in flat)
    return [next(rest) for _ in written], [[next(rest) for _ in texts] for texts in references]


def number_of(pair: LabelledPair) -> int | str:
    """Return the id that servers know a picture by: the file's `img_id`, or the last number."""
    image_id = pair.meta.get("img_id")
    if isinstance(image_id, int | str):
        return image_id
    last = last_number(pair.key)
    return pair.key if last is None else last
