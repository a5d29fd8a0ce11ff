"""Metrics: what evaluation counts, as pure functions over numbers and texts.

Shares are in [0, 1]. A number that the data does not define (nothing to count, labels of one kind
only) is None, never NaN.
"""

import unicodedata
from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from sklearn.metrics import (
    precision_score,
    recall_score,
    roc_auc_score,
)

KS = (1, 5, 10)

Numbers = dict[str, float | None]
NOTHING = np.zeros((0, 0), np.float32)  # scores of nothing with nothing


def retrieval(
    to_text: ArrayLike,
    to_image: ArrayLike,
    texts_of: Sequence[Collection[int]],
    ks: Sequence[int] = KS,
) -> Numbers:
    """Compute recall at k of B images among N texts (`tr@k`) and the other way round (`ir@k`).

    `to_text`: scores (B, N), `to_image`: scores (N, B), the higher the better; `texts_of`: the
    numbers of each image's texts, of which one may belong to several images. Where each text has
    one image this is the original's `itm_eval`, in shares instead of per cents; `tr_mean`,
    `ir_mean` and `r_mean` are its means too.
    """
    forth, back = np.asarray(to_text), np.asarray(to_image)
    images_of = images_of_texts(texts_of, len(back))
    numbers: Numbers = {}
    for name, scores, right in (("tr", forth, texts_of), ("ir", back, images_of)):
        recalls = recall_at(scores, right, ks)
        numbers |= {f"{name}@{k}": recall for k, recall in recalls.items()}
        numbers[f"{name}_mean"] = _mean(recalls.values())
    numbers["r_mean"] = _mean([numbers["tr_mean"], numbers["ir_mean"]])
    return numbers


def images_of_texts(texts_of: Sequence[Collection[int]], count: int) -> list[list[int]]:
    """Turn each image's texts into the images of each of `count` texts."""
    images_of: list[list[int]] = [[] for _ in range(count)]
    for image, texts in enumerate(texts_of):
        for text in texts:
            images_of[text].append(image)
    return images_of


def recall_at(
    scores: ArrayLike, right: Sequence[Collection[int]], ks: Sequence[int] = KS
) -> dict[int, float | None]:
    """Compute the share of queries of which a right candidate is among the k best.

    `scores`: (queries, candidates); `right`: the right candidates of each query; a query without
    any is left out. See `ranks` for equal scores.
    """
    positions = ranks(scores, right)
    return {k: float((positions < k).mean()) if len(positions) else None for k in ks}


def ranks(scores: ArrayLike, right: Sequence[Collection[int]]) -> NDArray[np.int64]:
    """Count the wrong candidates before each query's best right one.

    A wrong candidate of equal score stands before it, so that a model that scores all alike finds
    nothing; NaN is the lowest score.
    """
    counts = []
    for row, chosen in zip(np.asarray(scores), right, strict=True):
        if not chosen:
            continue
        row = np.where(np.isnan(row), -np.inf, row)
        best = row[list(chosen)].max()
        counts.append(int((row >= best).sum() - (row[list(chosen)] == best).sum()))
    return np.array(counts, dtype=np.int64)


def median_rank(scores: ArrayLike, right: Sequence[Collection[int]]) -> float | None:
    """Compute the median rank, from 1, of each query's best right candidate; see `ranks`."""
    positions = ranks(scores, right)
    return float(np.median(positions + 1)) if len(positions) else None


def ranking(true_ranks: Sequence[int], ks: Sequence[int] = KS) -> Numbers:
    """Compute what VisDial reports of the ranks, from 1, of true answers.

    `mrr` is the mean reciprocal rank, `r@k` the share of the k best, `mean_rank` their mean.
    """
    values = np.asarray(true_ranks)
    if not len(values):
        return {"mrr": None, **{f"r@{k}": None for k in ks}, "mean_rank": None}
    shares: Numbers = {f"r@{k}": float((values <= k).mean()) for k in ks}
    return {"mrr": float((1 / values).mean()), **shares, "mean_rank": float(values.mean())}


def ndcg(ranks_of: Sequence[int], relevance: Sequence[float]) -> float | None:
    """Compute VisDial's NDCG of one ranking: candidates' ranks, from 1, and their relevance.

    Only as many ranks count as there are candidates of some relevance; None without any.
    """
    gains, order = np.asarray(relevance, dtype=float), np.argsort(ranks_of)
    k = int((gains > 0).sum())
    if not k:
        return None
    weights = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.sort(gains)[::-1][:k]
    return float((gains[order][:k] * weights).sum() / (ideal * weights).sum())


def words(text: str) -> list[str]:
    """Split a text into lower-case words at white space, punctuation and symbols."""
    kept = (" " if unicodedata.category(sign)[0] in "PS" else sign for sign in text.lower())
    return "".join(kept).split()


Split = Callable[[str], list[str]]


def exact_match(written: Sequence[str], references: Sequence[Sequence[str]]) -> float | None:
    """Compute the share of texts that have the words of one of their references."""
    pairs = zip(written, references, strict=True)
    return _mean([words(text) in map(words, listed) for text, listed in pairs])


def cider(
    written: Sequence[str], references: Sequence[Sequence[str]], split: Split = words
) -> float | None:
    """Compute CIDEr-D by pycocoevalcap, of one text per image against its references; 0 to 10.

    Papers give it times 100. Texts are split by `words`, unless told otherwise: the PTB tokenizer
    needs Java (`java_metrics`), and without it numbers differ a little from published ones. It
    weighs words by how few images they belong to, so it is not defined for fewer than two images,
    or without any word.
    """
    by_image, made = _tables(written, references, split)
    if len(made) < 2 or not any(text for texts in by_image.values() for text in texts):
        return None
    return float(Cider().compute_score(by_image, made)[0])


def bleu(
    written: Sequence[str], references: Sequence[Sequence[str]], split: Split = words
) -> Numbers:
    """Compute BLEU-1 to BLEU-4 of the whole set by pycocoevalcap; texts are split as in `cider`.

    The reference nearest in length counts for the penalty of short texts. BLEU-n is not defined
    where no text has n words.
    """
    by_image, made = _tables(written, references, split)
    longest = max((len(text.split()) for (text,) in made.values()), default=0)
    values = Bleu(4).compute_score(by_image, made, verbose=0)[0] if longest else [0.0] * 4
    return {f"bleu_{n}": float(values[n - 1]) if n <= longest else None for n in range(1, 5)}


def rouge_l(
    written: Sequence[str], references: Sequence[Sequence[str]], split: Split = words
) -> float | None:
    """Compute the mean ROUGE-L by pycocoevalcap; texts are split as in `cider`."""
    by_image, made = _tables(written, references, split)
    return float(Rouge().compute_score(by_image, made)[0]) if made else None


def roc_auc(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Compute the probability that a positive scores higher than a negative; ties count half.

    None unless there are both. ValueError for scores that are not finite.
    """
    truth = np.asarray(labels, dtype=bool)
    if truth.all() or not truth.any():
        return None
    return float(roc_auc_score(truth, np.asarray(scores, dtype=float)))


def precision(kept: ArrayLike, labels: ArrayLike) -> float | None:
    """Compute the share of positives among the kept; None if nothing is kept."""
    chosen, truth = np.asarray(kept, dtype=bool), np.asarray(labels, dtype=bool)
    return float(precision_score(truth, chosen, zero_division=0)) if chosen.any() else None


def recall(kept: ArrayLike, labels: ArrayLike) -> float | None:
    """Compute the share of kept ones among the positives; None if there are none."""
    chosen, truth = np.asarray(kept, dtype=bool), np.asarray(labels, dtype=bool)
    return float(recall_score(truth, chosen, zero_division=0)) if truth.any() else None


def at_threshold(scores: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    """Mark what a threshold keeps, compared in float32 as judging does; NaN is not kept."""
    return np.asarray(scores, dtype=np.float32) >= np.float32(threshold)


def _tables(
    written: Sequence[str], references: Sequence[Sequence[str]], split: Split
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Write references and texts as the scorers take them: words apart, under equal keys."""
    pairs = list(zip(written, references, strict=True))
    by_image = {n: [" ".join(split(t)) for t in texts] for n, (_, texts) in enumerate(pairs)}
    if empty := [n for n, texts in by_image.items() if not texts]:
        raise ValueError(
            f"text {empty[0]} of {len(pairs)} has no reference; expected one or more for each"
        )
    return by_image, {n: [" ".join(split(text))] for n, (text, _) in enumerate(pairs)}


def _mean(values: Collection[float | None]) -> float | None:
    """Average; None if there is nothing, or nothing known, to average."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
