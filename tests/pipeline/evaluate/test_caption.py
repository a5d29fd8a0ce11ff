"""Captions: the numbers are those of captions written one picture at a time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.decoding.config import Decoding
from models.roles.captioner import BlipCaptioner
from models.roles.retrieval import Retriever
from pipeline.evaluate import LabelledPair, measure_captioner, measure_retrieval, metrics
from pipeline.evaluate.rows import captioned
from shards.training.annotation_file import read_rows
from tests.support.small_evaluation import CONFIG, GREEDY, evaluate_captioner, pixels_of


def test_captions_are_compared_with_the_references(
    folders: Path, pairs: list[LabelledPair]
) -> None:
    decoding = Decoding(method="nucleus", max_tokens=8)
    captioner = BlipCaptioner.load(folders / "captioner", decoding=decoding, seed=3, dtype="fp32")
    alone = [captioner.caption(pixels_of(captioner, p), [p.key], 1)[0][0].text for p in pairs]
    scored: dict[str, Any] = {
        "rouge_l": metrics.rouge_l,
        "cider": metrics.cider,
        "exact_match": metrics.exact_match,
    }
    references = [pair.texts for pair in pairs]
    expected = {name: metric(alone, references) for name, metric in scored.items()}
    expected |= metrics.bleu(alone, references)
    measures = evaluate_captioner(folders / "captioner", pairs, decoding, CONFIG, seed=3)
    assert measures == {"images": len(pairs), "left_out": {}, "tokenizer": "words", **expected}

    # with the model's own captions among the references, all are right
    paired = zip(pairs, alone, strict=True)
    own = [replace(pair, texts=("nothing", text.upper())) for pair, text in paired]
    measures = evaluate_captioner(folders / "captioner", own, decoding, CONFIG, seed=3)
    assert measures["exact_match"] == 1


def test_captions_are_judged_with_the_sidecar(folders: Path, pairs: list[LabelledPair]) -> None:
    seen = []

    def judge(text: str, meta: Any) -> bool | None:
        seen.append((text, meta["toy"]["true_caption"]))
        return [True, False, None, False][len(seen) % 4]

    folder = folders / "captioner"
    found = evaluate_captioner(folder, pairs[:12], GREEDY, CONFIG, is_right=judge)
    assert [true for _, true in seen] == [pair.meta["toy"]["true_caption"] for pair in pairs[:12]]
    assert (found["judged"], found["right"]) == (9, pytest.approx(3 / 9))
    none = evaluate_captioner(folder, pairs[:3], GREEDY, CONFIG, is_right=lambda *_: None)
    assert (none["judged"], none["right"]) == (0, None)


def test_captions_and_retrieval_read_karpathys_split(answering: Path, toy: Path) -> None:
    rows = read_rows(str(toy / "captions" / "captions.json"), ["image"])
    pairs = list(captioned(rows, str(toy / "captions")))
    assert [pair.texts for pair in pairs] == [tuple(row["caption"]) for row in rows]
    results: list[dict[str, Any]] = []
    captioner = BlipCaptioner.load(answering / "captioner", decoding=GREEDY, dtype="fp32")
    found = measure_captioner(captioner, pairs, results=results)
    assert found["cider"] is not None
    assert [one["image_id"] for one in results] == list(range(7))  # the names' last numbers
    retrieved = measure_retrieval(Retriever.load(answering / "filter", dtype="fp32"), pairs)
    assert retrieved["texts"] == len({text for pair in pairs for text in pair.texts})


def test_pictures_without_references_are_captioned_for_the_server(
    answering: Path, toy: Path
) -> None:
    """nocaps: the captions of people stay on the server, and `img_id` is the picture's number."""
    rows = read_rows(str(toy / "captions" / "captions.json"), ["image"])
    asked = [{"image": row["image"], "img_id": 1000 + n} for n, row in enumerate(rows)]
    results: list[dict[str, Any]] = []
    captioner = BlipCaptioner.load(answering / "captioner", decoding=GREEDY, dtype="fp32")
    found = measure_captioner(captioner, captioned(asked, str(toy / "captions")), results=results)
    assert found["images"] == 7
    assert {found[name] for name in ("cider", "bleu_4", "rouge_l", "exact_match")} == {None}
    assert [one["image_id"] for one in results] == [1000 + n for n in range(7)]
    retriever = Retriever.load(answering / "filter", dtype="fp32")
    nothing = measure_retrieval(retriever, captioned(asked, str(toy / "captions")))
    assert nothing["left_out"] == {"text_missing": 7}


def test_captions_of_bad_rows_are_counted(answering: Path, toy: Path) -> None:
    first, *rest = read_rows(str(toy / "captions" / "captions.json"), ["image"])
    spoiled = [
        {**first, "image": "gone.png"},
        {**first, "image": "/etc/passwd"},  # not in the folder, and nowhere else looked for
        {**first, "image": "../../etc/passwd"},
        {**first, "caption": None},
        {**first, "caption": [" "]},
        {**first, "caption": [3]},
        {},
    ]
    captioner = BlipCaptioner.load(answering / "captioner", decoding=GREEDY, dtype="fp32")
    found = measure_captioner(captioner, captioned([*spoiled, *rest], str(toy / "captions")))
    assert found["images"] == len(rest)
    assert found["left_out"] == {
        "image_missing": 3,
        "unsafe_member": 1,
        "null_value": 1,
        "text_empty": 1,
        "wrong_type": 1,
    }


def test_nothing_to_evaluate_gives_no_numbers(folders: Path) -> None:
    found = evaluate_captioner(folders / "captioner", [], GREEDY, CONFIG)
    assert found["cider"] is found["bleu_4"] is found["exact_match"] is None
