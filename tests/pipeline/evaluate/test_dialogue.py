"""Dialogues: each round's candidates are ranked as alone."""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from models.roles.dialogue import load_ranker
from models.training.dialogue import Dialogue
from pipeline.evaluate.dialogue import measure_dialogue
from shards.training.annotation_file import read_dialogues
from tests.support.small_evaluation import pixels_of


@pytest.mark.parametrize("role", ["vqa", "filter"])
def test_dialogues_are_ranked_one_by_one(answering: Path, toy: Path, role: str) -> None:
    ranker = load_ranker(answering / role, dtype="fp32")
    dialogues, left_out = read_dialogues(str(toy / "visdial" / "visdial.json"))
    assert left_out == {}
    results: list[dict[str, Any]] = []
    dense = {(0, 1): [1.0] + [0.0] * 9, (1, 2): [0.5] * 10, (2, 1): [1.0]}
    measures = measure_dialogue(
        ranker, dialogues, str(toy / "visdial"), dense=dense, results=results
    )
    true_ranks = []
    for dialogue in dialogues:
        (path,) = (toy / "visdial" / "images").glob(f"*_{dialogue.image_id:012d}.png")
        for n, row in enumerate(dialogue.rounds):
            before = [(r.question, r.answer) for r in dialogue.rounds[:n]]
            asked = Dialogue(dialogue.caption, before, row.question)
            (ranked,) = ranker.rank(pixels_of(ranker, path), [asked], [row.options])
            assert row.true is not None
            true_ranks.append([c.index for c in ranked].index(row.true) + 1)
            ranks = results[len(true_ranks) - 1]["ranks"]
            assert [c.index for c in ranked] == sorted(range(10), key=lambda k: ranks[k])
    assert measures["mean_rank"] == pytest.approx(fmean(true_ranks))
    assert measures["mrr"] == pytest.approx(fmean(1 / rank for rank in true_ranks), abs=1e-9)
    assert measures["r@1"] == true_ranks.count(1) / len(true_ranks)
    assert measures["rounds"] == measures["compared"] == len(true_ranks) == 28
    # a list of another length than the candidates does not count
    assert measures["ndcg"] is not None
    assert [(row["image_id"], row["round_id"]) for row in results[:5]] == [
        *((0, n) for n in (1, 2, 3, 4)),
        (1, 1),
    ]


def test_dialogues_without_picture_or_candidates_are_counted(answering: Path, toy: Path) -> None:
    ranker = load_ranker(answering / "vqa", dtype="fp32")
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
