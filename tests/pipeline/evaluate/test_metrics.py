"""Metrics against slow, obvious loops, and at the edges where numbers are not defined."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluate import metrics

WORDS = st.sampled_from(["a", "red", "dog", "runs", "on", "grass", "the", "big"])
TEXT = st.lists(WORDS, min_size=1, max_size=9).map(" ".join)
CAPTIONED = st.lists(
    st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=3)), min_size=2, max_size=6
)


@st.composite
def searches(draw: st.DrawFn) -> tuple[np.ndarray, list[set[int]]]:
    queries, candidates = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    # few values: many scores are equal
    values = st.lists(st.integers(0, 4), min_size=candidates, max_size=candidates)
    scores = draw(st.lists(values, min_size=queries, max_size=queries))
    chosen = st.sets(st.integers(0, candidates - 1), max_size=candidates)
    right = draw(st.lists(chosen, min_size=queries, max_size=queries))
    return np.array(scores, dtype=np.float32), right


def slow_recall(scores: np.ndarray, right: Sequence[set[int]], k: int) -> float | None:
    hits = []
    for row, chosen in zip(scores, right, strict=True):
        if not chosen:
            continue
        # sorted by score, and of equal ones the wrong first
        order = sorted(range(len(row)), key=lambda n: (-row[n], n in chosen))
        hits.append(any(n in chosen for n in order[:k]))
    return sum(hits) / len(hits) if hits else None


@settings(max_examples=50, deadline=None)
@given(searches(), st.integers(1, 9))
def test_recall_is_the_share_of_queries_with_a_right_one_in_front(
    case: tuple[np.ndarray, list[set[int]]], k: int
) -> None:
    scores, right = case
    assert metrics.recall_at(scores, right, [k]) == {k: slow_recall(scores, right, k)}


def original(scores: np.ndarray, right: Sequence[Sequence[int]], k: int) -> float:
    """Rank as the original's evaluation does (BLIP, train_retrieval.py), in shares."""
    best = []
    for row, chosen in zip(scores, right, strict=True):
        order = np.argsort(row)[::-1]
        best.append(min(int(np.flatnonzero(order == one)[0]) for one in chosen))
    return sum(rank < k for rank in best) / len(best)


@pytest.mark.parametrize("seed", range(5))
def test_retrieval_is_the_originals_where_each_text_has_one_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    texts_of = [[5 * image + n for n in range(5)] for image in range(30)]
    to_text, to_image = rng.normal(size=(30, 150)), rng.normal(size=(150, 30))
    for image, texts in enumerate(texts_of):  # a model that is better than chance
        to_text[image, texts] += 1
        to_image[texts, image] += 1
    recalls = metrics.retrieval(to_text, to_image, texts_of)
    image_of = [[text // 5] for text in range(150)]
    tr = [original(to_text, texts_of, k) for k in (1, 5, 10)]
    ir = [original(to_image, image_of, k) for k in (1, 5, 10)]
    expected = {"tr_mean": sum(tr) / 3, "ir_mean": sum(ir) / 3}
    expected |= {f"tr@{k}": value for k, value in zip((1, 5, 10), tr, strict=True)}
    expected |= {f"ir@{k}": value for k, value in zip((1, 5, 10), ir, strict=True)}
    expected["r_mean"] = (expected["tr_mean"] + expected["ir_mean"]) / 2
    assert recalls == pytest.approx(expected)


def test_a_text_of_two_images_is_found_with_either() -> None:
    texts_of = [[0], [0, 1], []]
    to_text = [[1, 0], [0, 1], [0, 1]]  # the third image has no text: it asks nothing
    to_image = [[0, 9, 5], [9, 0, 5]]
    found = metrics.retrieval(to_text, to_image, texts_of, ks=[1])
    assert found == {"tr@1": 1, "tr_mean": 1, "ir@1": 0.5, "ir_mean": 0.5, "r_mean": 0.75}


def test_a_model_that_says_the_same_of_all_finds_nothing() -> None:
    for constant in (0.5, -100, math.nan):
        scores = np.full((3, 20), constant)
        assert metrics.recall_at(scores, [{n} for n in range(3)]) == {1: 0, 5: 0, 10: 0}


def test_a_score_that_is_no_number_stands_last() -> None:
    scores = [[math.nan, 0.1, 0.2], [0.3, math.nan, 0.2]]
    assert metrics.ranks(scores, [{0}, {0}]).tolist() == [2, 0]


def test_the_median_rank_is_that_of_sorted_lists() -> None:
    scores = [[0.9, 0.5, 0.1], [0.2, 0.1, 0.7], [0.3, 0.2, 0.1], [0.6, 0.5, 0.4]]
    right = [{0}, {1}, {2}, {1}]
    places = [
        sorted(range(3), key=row.__getitem__, reverse=True).index(min(own)) + 1
        for row, own in zip(scores, right, strict=True)
    ]
    assert metrics.median_rank(scores, right) == statistics.median(places) == 2.5
    assert metrics.median_rank([], []) is None


def test_a_ranking_has_visdials_numbers() -> None:
    """MRR, R@k and mean rank, as the VisDial paper defines them (section 5.1)."""
    places = [1, 4, 2, 100]
    assert metrics.ranking(places) == {
        "mrr": pytest.approx((1 + 1 / 4 + 1 / 2 + 1 / 100) / 4, abs=1e-9),
        "r@1": 0.25,
        "r@5": 0.75,
        "r@10": 0.75,
        "mean_rank": 107 / 4,
    }
    assert set(metrics.ranking([]).values()) == {None}


@given(
    st.permutations(range(1, 9)),
    st.lists(st.sampled_from([0, 0.2, 0.5, 1]), min_size=8, max_size=8),
)
def test_ndcg_is_its_definition(ranks_of: list[int], relevance: list[float]) -> None:
    """Of k relevant candidates, the first k places count (VisDial challenge)."""
    k = sum(gain > 0 for gain in relevance)
    computed = metrics.ndcg(ranks_of, relevance)
    if not k:
        assert computed is None
        return
    gained = sum(
        gain / math.log2(place + 1)
        for place, gain in zip(ranks_of, relevance, strict=True)
        if place <= k
    )
    best = sum(
        gain / math.log2(n + 2) for n, gain in enumerate(sorted(relevance, reverse=True)[:k])
    )
    assert computed == pytest.approx(gained / best, abs=1e-9)


def test_nothing_to_search_is_not_a_number() -> None:
    found = metrics.retrieval(np.zeros((0, 0)), np.zeros((0, 0)), [])
    assert set(found.values()) == {None}
    assert metrics.recall_at(np.zeros((2, 3)), [(), ()], [1]) == {1: None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red, RED ring.", ["a", "red", "red", "ring"]),
        ("the dog's well-kept  fur\n", ["the", "dog", "s", "well", "kept", "fur"]),
        ("«Über» 3 km²; 5 € & ¿qué?", ["über", "3", "km²", "5", "qué"]),
        ("बिल्ली!", ["बिल्ली"]),
        ("?!…", []),
    ],
)
def test_words_are_lower_case_and_without_punctuation(text: str, expected: list[str]) -> None:
    assert metrics.words(text) == expected


def test_an_exact_match_is_one_of_the_references_word_for_word() -> None:
    written = ["A red ring.", "a red", "a ring"]
    references = [["a ring", "a red ring"], ["a red ring"], ["ring a"]]
    assert metrics.exact_match(written, references) == pytest.approx(1 / 3)
    assert metrics.exact_match([], []) is None


def grams(text: str, n: int) -> Counter[tuple[str, ...]]:
    parts = text.split()
    return Counter(tuple(parts[i : i + n]) for i in range(len(parts) - n + 1))


def slow_cider(written: list[str], references: list[list[str]]) -> float:
    """Compute CIDEr-D from its definition (Vedantam et al., equations 1 to 3 and section 6)."""

    def weight(gram: tuple[str, ...], count: int) -> float:
        bearing = sum(
            any(gram in grams(one, len(gram)) for one in of_image) for of_image in references
        )
        return count * (math.log(len(references)) - math.log(max(1, bearing)))

    def vector(text: str, n: int) -> dict[tuple[str, ...], float]:
        return {gram: weight(gram, count) for gram, count in grams(text, n).items()}

    def norm(scores: dict[tuple[str, ...], float]) -> float:
        return math.sqrt(sum(value**2 for value in scores.values()))

    total = 0.0
    for text, of_image in zip(written, references, strict=True):
        for reference in of_image:
            # the library takes the number of word pairs for the length
            apart = grams(text, 2).total() - grams(reference, 2).total()
            penalty = math.exp(-(apart**2) / (2 * 6**2))
            for n in range(1, 5):
                ours, theirs = vector(text, n), vector(reference, n)
                shared = sum(min(ours[g], theirs.get(g, 0)) * theirs.get(g, 0) for g in ours)
                size = norm(ours) * norm(theirs)
                total += 10 / 4 * penalty * (shared / size if size else 0) / len(of_image)
    return total / len(written)


@settings(max_examples=50, deadline=None)
@given(CAPTIONED)
def test_cider_is_its_definition(pairs: list[tuple[str, list[str]]]) -> None:
    written, references = [text for text, _ in pairs], [given for _, given in pairs]
    found = metrics.cider(written, references)
    assert found == pytest.approx(slow_cider(written, references), abs=1e-9)


def test_cider_of_perfect_texts_is_ten_and_of_foreign_ones_nothing() -> None:
    references = [["a red dog runs on grass"], ["two cats sleep in the sun"]]
    perfect = [f"{texts[0].upper()}!" for texts in references]  # neither case nor signs count
    assert metrics.cider(perfect, references) == pytest.approx(10)
    assert metrics.cider(["boat", ""], references) == 0


def test_cider_is_not_defined_for_one_image_or_no_word() -> None:
    assert metrics.cider([], []) is None
    assert metrics.cider(["a dog"], [["a dog"]]) is None
    assert metrics.cider(["a dog", "a cat"], [["?"], ["!"]]) is None


def slow_bleu(written: list[str], references: list[list[str]], most: int) -> float:
    """Compute BLEU-n from its definition (Papineni et al., section 2.3), exactly until the root."""
    product, length, nearest = Fraction(1), 0, 0
    for n in range(1, most + 1):
        hits = tries = 0
        for text, of_image in zip(written, references, strict=True):
            for gram, count in grams(text, n).items():
                hits += min(count, max(grams(reference, n)[gram] for reference in of_image))
                tries += count
        product *= Fraction(hits, tries) if tries else 0
    for text, of_image in zip(written, references, strict=True):
        size = len(text.split())
        length += size
        nearest += min(
            (abs(len(reference.split()) - size), len(reference.split())) for reference in of_image
        )[1]
    penalty = min(1.0, math.exp(1 - nearest / length))
    return float(product) ** (1 / most) * penalty


@settings(max_examples=50, deadline=None)
@given(CAPTIONED)
def test_bleu_is_its_definition(pairs: list[tuple[str, list[str]]]) -> None:
    written, references = [text for text, _ in pairs], [given for _, given in pairs]
    measures = metrics.bleu(written, references)
    for n in range(1, 5):
        if all(len(text.split()) < n for text in written):
            assert measures[f"bleu_{n}"] is None
            continue
        # the library adds 1e-15 to no hits, of which it then takes the n-th root
        expected = slow_bleu(written, references, n)
        assert measures[f"bleu_{n}"] == pytest.approx(expected, abs=1e-6 if expected else 2e-3)


def test_bleu_of_perfect_texts_is_one_and_of_nothing_not_defined() -> None:
    references = [["a red dog runs on grass", "a dog"], ["two cats sleep in the sun"]]

    def bleu_4(written: list[str], texts: list[list[str]]) -> float | None:
        return metrics.bleu(written, texts)["bleu_4"]

    assert bleu_4([texts[0] for texts in references], references) == pytest.approx(1)
    assert bleu_4([], []) is None
    assert bleu_4(["", "a dog runs"], [["a dog"], ["a dog runs"]]) is None
    assert bleu_4(["", "two boats are far"], references) == pytest.approx(0, abs=1e-3)


def longest_common(first: list[str], other: list[str]) -> int:
    """Count the words of the longest common subsequence, by trying both ways at each step."""
    if not first or not other:
        return 0
    if first[0] == other[0]:
        return 1 + longest_common(first[1:], other[1:])
    return max(longest_common(first[1:], other), longest_common(first, other[1:]))


def slow_rouge_l(written: list[str], references: list[list[str]]) -> float:
    """Compute ROUGE-L from its definition (Lin, section 3.2), with COCO's beta of 1.2."""
    total = 0.0
    for text, own in zip(written, references, strict=True):
        common = [longest_common(text.split(" "), one.split(" ")) for one in own]
        precision = max(n / len(text.split(" ")) for n in common)
        recall = max(n / len(one.split(" ")) for n, one in zip(common, own, strict=True))
        if precision and recall:
            total += (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
    return total / len(written)


@settings(max_examples=50, deadline=None)
@given(CAPTIONED)
def test_rouge_l_is_its_definition(pairs: list[tuple[str, list[str]]]) -> None:
    written, references = [text for text, _ in pairs], [given for _, given in pairs]
    found = metrics.rouge_l(written, references)
    assert found == pytest.approx(slow_rouge_l(written, references), abs=1e-9)
    assert metrics.rouge_l([], []) is None


def test_scorers_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    metrics.bleu(["a big dog runs", "a cat"], [["a dog"], ["the cat"]])
    metrics.rouge_l(["a big dog runs", "a cat"], [["a dog"], ["the cat"]])
    metrics.cider(["a dog", "a cat"], [["a dog"], ["the cat"]])
    assert capsys.readouterr() == ("", "")


def test_a_text_without_a_reference_is_refused() -> None:
    metric: Any
    for metric in (metrics.cider, metrics.bleu, metrics.rouge_l):
        with pytest.raises(ValueError, match="text 1 of 2 has no reference"):
            metric(["a", "b"], [["a"], []])
        with pytest.raises(ValueError, match="argument 2 is shorter"):
            metric(["a", "b"], [["a"]])


SCORED = st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=12)


@settings(max_examples=50, deadline=None)
@given(SCORED)
def test_roc_auc_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    good, bad = ([score for score, label in rows if label is wanted] for wanted in (True, False))
    wins = sum((g > b) + 0.5 * (g == b) for g in good for b in bad)
    expected = wins / (len(good) * len(bad)) if good and bad else None
    found = metrics.roc_auc([score for score, _ in rows], [label for _, label in rows])
    assert found == (expected if expected is None else pytest.approx(expected))


@settings(max_examples=50, deadline=None)
@given(SCORED, st.integers(0, 6))
def test_precision_and_recall_count_what_is_kept(
    rows: list[tuple[int, bool]], threshold: int
) -> None:
    labels = [label for _, label in rows]
    kept = metrics.at_threshold([score for score, _ in rows], threshold)
    good = sum(label for score, label in rows if score >= threshold)
    chosen = sum(score >= threshold for score, _ in rows)
    for found, of in (
        (metrics.precision(kept, labels), chosen),
        (metrics.recall(kept, labels), sum(labels)),
    ):
        assert found == (pytest.approx(good / of) if of else None)


def test_a_threshold_compares_in_float32_and_keeps_no_nan() -> None:
    as_stored = float(np.float32(0.7))  # below 0.7 in float64
    assert metrics.at_threshold([as_stored, 0.69, math.nan, math.inf], 0.7).tolist() == [
        True,
        False,
        False,
        True,
    ]
