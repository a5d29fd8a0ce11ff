"""Evaluation of answers, statements and dialogues, from files in the field's form."""

import json
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from PIL import Image

from models.blip.config import ORIGINAL, blip_config
from models.blip.tokenizer import train
from models.checkpoints import checkpoint
from models.decoding.generate import Decoding
from models.roles.captioner import BlipCaptioner
from models.roles.dialogue import load_ranker
from models.roles.nlvr import NlvrModel
from models.roles.retrieval import Retriever
from models.roles.vqa import VqaModel
from models.training.dialogue import Dialogue
from pipeline.evaluate import measure_captioner, measure_retrieval
from pipeline.evaluate.dialogue import measure_dialogue
from pipeline.evaluate.nlvr import measure_nlvr
from pipeline.evaluate.rows import captioned
from pipeline.evaluate.vqa import measure_vqa
from pipeline.evaluate.vqa_accuracy import accuracy
from pipeline.toy import dialogue as toy_dialogue
from pipeline.toy import tasks as toy_tasks
from pipeline.toy.tasks import ToyTasksConfig
from shards.training.annotation_file import AnnotationError, read_dialogues, read_rows

SIDE = 32
GREEDY = Decoding(method="greedy", max_tokens=8)
FEW = ToyTasksConfig(samples=7, image_px=SIDE, kinds=4, questions=2)
ANSWERS = ["red", "circle", "yes", "no", "2", "left of"]

Change = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = train([*toy_tasks.corpus(), *toy_dialogue.corpus()], 300)
    shape = blip_config(
        "tiny", vocab_size=words.size, sep_id=words.sep_id, pad_id=words.pad_id, image_size=SIDE
    )
    shape.vision_config.num_hidden_layers = shape.text_config.num_hidden_layers = 1
    shape.vision_config.initializer_range = shape.text_config.initializer_range = 0.2
    folder = tmp_path_factory.mktemp("answering")
    for role in ("vqa", "nlvr", "captioner", "filter"):
        checkpoint.create(folder / role, role, shape, words, seed=5, settings=ORIGINAL)
    return folder


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    toy_tasks.write_captions(folder / "captions", FEW)
    toy_tasks.write_questions(folder / "vqa", FEW)
    toy_tasks.write_statements(folder / "nlvr", FEW)
    toy_dialogue.write_dialogues(folder / "visdial", FEW)
    return folder


def picture(role: Any, path: Path) -> torch.Tensor:
    with Image.open(path) as image:
        pixels: torch.Tensor = role.preprocess.resize(image.convert("RGB"))[None]
    return pixels


@pytest.mark.parametrize("answers", [[], ANSWERS])
def test_answers_are_compared_one_by_one(folders: Path, toy: Path, answers: list[str]) -> None:
    answerer = VqaModel.load(folders / "vqa", dtype="fp32")
    rows = read_rows(str(toy / "vqa" / "vqa.json"), ["question"])
    results: list[dict[str, Any]] = []
    found = measure_vqa(
        answerer, rows, str(toy / "vqa"), 4, answers=answers, by="kind", results=results
    )
    alone = []
    for row in rows:
        pixels = picture(answerer, toy / "vqa" / row["image"])
        if answers:
            alone.append(answerer.rank(pixels, [row["question"]], answers)[0][0].text)
        else:
            alone.append(answerer.answer(pixels, [row["question"]])[0].text)
    assert results == [
        {"question_id": row["question_id"], "answer": said}
        for row, said in zip(rows, alone, strict=True)
    ]
    scores = [accuracy(said, row["answer"]) for row, said in zip(rows, alone, strict=True)]
    assert found["accuracy"] == pytest.approx(fmean(scores), abs=1e-9)
    assert (found["questions"], found["compared"], found["left_out"]) == (len(rows),) * 2 + ({},)
    for kind, mean in found["by_kind"].items():
        own = [s for s, row in zip(scores, rows, strict=True) if row["kind"] == kind]
        assert mean == pytest.approx(fmean(own), abs=1e-9)


def test_questions_without_answers_are_answered_and_not_compared(folders: Path, toy: Path) -> None:
    """The form of the test split, whose answers only the server knows."""
    answerer = VqaModel.load(folders / "vqa", dtype="fp32")
    rows = [
        {k: row[k] for k in ("image", "question", "question_id")}
        for row in read_rows(str(toy / "vqa" / "vqa.json"), ["question"])
    ]
    results: list[dict[str, Any]] = []
    found = measure_vqa(answerer, rows, str(toy / "vqa"), results=results)
    assert (found["questions"], found["compared"], found["accuracy"]) == (len(rows), 0, None)
    assert [one["question_id"] for one in results] == [row["question_id"] for row in rows]


def test_statements_are_judged_one_by_one(folders: Path, toy: Path) -> None:
    reasoner = NlvrModel.load(folders / "nlvr", dtype="fp32")
    rows = read_rows(str(toy / "nlvr" / "nlvr.json"), ["sentence"])
    rows += [rows[0] | {"label": str(rows[0]["label"] != "True")}]  # one sentence twice
    found = measure_nlvr(reasoner, rows, str(toy / "nlvr"), 3)
    judged = []
    for row in rows:
        left, right = (picture(reasoner, toy / "nlvr" / name) for name in row["images"])
        (chance,) = reasoner.reason(left, right, [row["sentence"]])
        judged.append((row["sentence"], (chance > 0.5) == (row["label"] == "True")))
    groups = groupby(sorted(judged), key=lambda one: one[0])
    whole = [all(right for _, right in own) for _, own in groups]
    assert found == {
        "statements": 8,
        "left_out": {},
        "accuracy": pytest.approx(fmean(right for _, right in judged)),
        "consistency": pytest.approx(fmean(whole)),
    }


@pytest.mark.parametrize("role", ["vqa", "filter"])
def test_dialogues_are_ranked_one_by_one(folders: Path, toy: Path, role: str) -> None:
    ranker = load_ranker(folders / role, dtype="fp32")
    dialogues, left_out = read_dialogues(str(toy / "visdial" / "visdial.json"))
    assert left_out == {}
    results: list[dict[str, Any]] = []
    dense = {(0, 1): [1.0] + [0.0] * 9, (1, 2): [0.5] * 10, (2, 1): [1.0]}
    found = measure_dialogue(ranker, dialogues, str(toy / "visdial"), dense=dense, results=results)
    places = []
    for dialogue in dialogues:
        (path,) = (toy / "visdial" / "images").glob(f"*_{dialogue.image_id:012d}.png")
        for n, one in enumerate(dialogue.rounds):
            before = [(r.question, r.answer) for r in dialogue.rounds[:n]]
            asked = Dialogue(dialogue.caption, before, one.question)
            (ranked,) = ranker.rank(picture(ranker, path), [asked], [one.options])
            places.append([c.index for c in ranked].index(one.true) + 1)
            ranks = results[len(places) - 1]["ranks"]
            assert [c.index for c in ranked] == sorted(range(10), key=lambda k: ranks[k])
    assert found["mean_rank"] == pytest.approx(fmean(places))
    assert found["mrr"] == pytest.approx(fmean(1 / place for place in places), abs=1e-9)
    assert found["r@1"] == places.count(1) / len(places)
    assert found["rounds"] == found["compared"] == len(places) == 28
    assert found["ndcg"] is not None  # a list of another length than the candidates does not count
    assert [(one["image_id"], one["round_id"]) for one in results[:5]] == [
        *((0, n) for n in (1, 2, 3, 4)),
        (1, 1),
    ]


def test_captions_and_retrieval_read_karpathys_split(folders: Path, toy: Path) -> None:
    rows = read_rows(str(toy / "captions" / "captions.json"), ["image"])
    pairs = list(captioned(rows, str(toy / "captions")))
    assert [pair.texts for pair in pairs] == [tuple(row["caption"]) for row in rows]
    results: list[dict[str, Any]] = []
    captioner = BlipCaptioner.load(folders / "captioner", decoding=GREEDY, dtype="fp32")
    found = measure_captioner(captioner, pairs, results=results)
    assert found["cider"] is not None
    assert [one["image_id"] for one in results] == list(range(7))  # the names' last numbers
    retrieved = measure_retrieval(Retriever.load(folders / "filter", dtype="fp32"), pairs)
    assert retrieved["texts"] == len({text for pair in pairs for text in pair.texts})


def test_pictures_without_references_are_captioned_for_the_server(folders: Path, toy: Path) -> None:
    """nocaps: the captions of people stay on the server, and `img_id` is the picture's number."""
    rows = read_rows(str(toy / "captions" / "captions.json"), ["image"])
    asked = [{"image": row["image"], "img_id": 1000 + n} for n, row in enumerate(rows)]
    results: list[dict[str, Any]] = []
    captioner = BlipCaptioner.load(folders / "captioner", decoding=GREEDY, dtype="fp32")
    found = measure_captioner(captioner, captioned(asked, str(toy / "captions")), results=results)
    assert found["images"] == 7
    assert {found[name] for name in ("cider", "bleu_4", "rouge_l", "exact_match")} == {None}
    assert [one["image_id"] for one in results] == [1000 + n for n in range(7)]
    retriever = Retriever.load(folders / "filter", dtype="fp32")
    nothing = measure_retrieval(retriever, captioned(asked, str(toy / "captions")))
    assert nothing["left_out"] == {"text_missing": 7}


SPOILED: dict[str, tuple[Change, str]] = {
    "missing": (lambda _: {"image": "gone.png"}, "image_missing"),
    "outside": (lambda _: {"image": "../../etc/passwd"}, "unsafe_member"),
    "no name": (lambda _: {"image": None}, "image_missing"),
    "no picture": (lambda _: {"image": "broken.png"}, "image_undecodable"),
    "blank": (lambda _: {"question": " "}, "text_empty"),
    "blank answers": (lambda _: {"answer": [" "] * 10}, "text_empty"),
    "numbers": (lambda _: {"answer": [3] * 10}, "wrong_type"),
    "no question": (lambda _: {"question": None}, "wrong_type"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_bad_row_is_counted_and_the_others_are_answered(
    folders: Path, toy: Path, name: str
) -> None:
    (toy / "vqa" / "broken.png").write_bytes(b"no picture")
    change, reason = SPOILED[name]
    good, bad, last, *_ = read_rows(str(toy / "vqa" / "vqa.json"), ["question"])
    answerer = VqaModel.load(folders / "vqa", dtype="fp32")
    results: list[dict[str, Any]] = []
    rows = [good, {**bad, **change(dict(bad))}, last]
    found = measure_vqa(answerer, rows, str(toy / "vqa"), results=results)
    assert found["left_out"] == {reason: 1}
    assert [one["question_id"] for one in results] == [good["question_id"], last["question_id"]]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"images": ["gone.png", "gone.png"]}, "image_missing"),
        ({"images": ["one.png"]}, "wrong_type"),
        ({"label": "maybe"}, "wrong_type"),
        ({"sentence": ""}, "text_empty"),
        ({"sentence": ["a"]}, "wrong_type"),
    ],
)
def test_a_bad_statement_is_counted(
    folders: Path, toy: Path, changed: dict[str, Any], reason: str
) -> None:
    first, *rest = read_rows(str(toy / "nlvr" / "nlvr.json"), ["sentence"])
    reasoner = NlvrModel.load(folders / "nlvr", dtype="fp32")
    found = measure_nlvr(reasoner, [{**first, **changed}, {}, *rest], str(toy / "nlvr"))
    assert found["left_out"] == {reason: 1, "missing_column": 1}
    assert found["statements"] == len(rest)


def test_captions_of_bad_rows_are_counted(folders: Path, toy: Path) -> None:
    first, *rest = read_rows(str(toy / "captions" / "captions.json"), ["image"])
    spoiled = [
        {**first, "image": "gone.png"},
        {**first, "image": "/etc/passwd"},
        {**first, "caption": [" "]},
        {**first, "caption": [3]},
        {},
    ]
    captioner = BlipCaptioner.load(folders / "captioner", decoding=GREEDY, dtype="fp32")
    found = measure_captioner(captioner, captioned([*spoiled, *rest], str(toy / "captions")))
    assert found["images"] == len(rest)
    assert found["left_out"] == {
        "image_missing": 2,
        "unsafe_member": 1,
        "text_empty": 1,
        "wrong_type": 1,
    }


def test_dialogues_without_picture_or_candidates_are_counted(folders: Path, toy: Path) -> None:
    ranker = load_ranker(folders / "vqa", dtype="fp32")
    path = toy / "visdial" / "visdial.json"
    spoiled = json.loads(path.read_text())
    first, second, *_ = spoiled["data"]["dialogs"]
    first["image_id"] = 999
    del second["dialog"][0]["answer_options"]
    del second["dialog"][0]["gt_index"]
    other = path.with_name("spoiled.json")
    other.write_text(json.dumps(spoiled))
    dialogues, _ = read_dialogues(str(other))
    found = measure_dialogue(ranker, dialogues[:2], str(toy / "visdial"))
    assert found["left_out"] == {"image_missing": 4, "candidates_missing": 1}
    assert found["rounds"] == 3


@pytest.mark.parametrize("content", ["[]", "{}", '[{"image": 1}]', "[3]", "not JSON", "3"])
def test_a_file_of_another_form_is_one_message(tmp_path: Path, content: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(content)
    with pytest.raises(AnnotationError, match=r"rows\.json"):
        read_rows(str(path), ["image", "question"])
    with pytest.raises(AnnotationError, match=r"rows\.json"):
        read_dialogues(str(path))
    with pytest.raises(AnnotationError, match="is no file"):
        read_rows(str(tmp_path / "gone.json"), ["image"])
