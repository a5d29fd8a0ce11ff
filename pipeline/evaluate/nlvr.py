"""Evaluate statements about two pictures (NLVR2): how many are judged right?"""

from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from itertools import chain
from statistics import fmean
from typing import Any

from models.roles.nlvr import NlvrModel
from pipeline.evaluate.rows import AnnotatedPictures, Loaded, stacked
from pipeline.media.ahead import load_batches
from shards.training.annotation import Fields, fold_spaces, read_label
from shards.training.annotation_file import statement_reason
from shards.training.left_out import LeftOut, Unusable, excerpt
from shards.training.picture_name import NamesTogether


def measure_nlvr(
    reasoner: NlvrModel,
    rows: Iterable[Fields],
    images: str,
    batch_size: int = 32,
    names: NamesTogether | None = None,
) -> dict[str, Any]:
    """Judge the statements of NLVR2's rows; in [0, 1].

    `consistency` is the share of sentences that are judged right with every pair of pictures that
    they stand beside.
    """
    pictures, left_out = AnnotatedPictures(images, reasoner.preprocess, names), LeftOut()
    right_of: dict[str, list[bool]] = defaultdict(list)
    load = partial(_load, pictures=pictures)
    for batch, loaded in load_batches(rows, load, batch_size, left_out):
        left, right = stacked(loaded)
        sentences = [str(fold_spaces(row["sentence"])) for row in batch]
        probabilities = reasoner.reason(left, right, sentences)
        for row, sentence, probability in zip(batch, sentences, probabilities, strict=True):
            right_of[sentence].append((probability > 0.5) == read_label(row["label"]))
    verdicts = list(chain.from_iterable(right_of.values()))
    return {
        "statements": len(verdicts),
        "left_out": left_out,
        "accuracy": fmean(verdicts) if verdicts else None,
        "consistency": fmean(map(all, right_of.values())) if verdicts else None,
    }


def _load(row: Fields, pictures: AnnotatedPictures) -> Loaded | str:
    reason = statement_reason(row)
    return pictures.load(row["images"]) if reason is None else Unusable(reason, excerpt(row))
