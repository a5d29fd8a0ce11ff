"""The loss of dialogues, against the roles that rank answers."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from models.roles.dialogue import LikelihoodRanker, load_ranker
from models.training.dialogue import Dialogue
from pipeline.toy.dialogue import write_dialogues
from pipeline.toy.tasks import ToyTasksConfig
from pipeline.train.dataloader import Batch, TextTransform
from pipeline.train.finetune import check_sources, start_finetuning
from pipeline.train.objectives.answer_negatives import wrong_answers
from shards.training.annotation import SourceText, WeightedAnswer
from shards.training.source import SourceConfig
from shards.training.source_reader import open_source, read_part
from tests.support.small_finetuning import (
    TEXTS,
    config_of,
    losses_of,
)


def test_a_dialogue_is_learned_as_it_is_ranked(pretrained: Path, tmp_path: Path) -> None:
    """By likelihood: the ids of the feed are those that the role composes, history included."""
    path = write_dialogues(tmp_path / "toy", ToyTasksConfig(samples=6, image_px=32, kinds=4))
    config = config_of("dialogue", pretrained, dialogue={"by": "likelihood"})
    objective = start_finetuning(config)
    ranker = LikelihoodRanker.load(objective.export(tmp_path)["vqa"], max_tokens=24, dtype="fp32")
    source = open_source(SourceConfig(annotations=str(path)))
    check_sources("dialogue", [source])
    wording = TextTransform(objective.about.tokenizer, 24, objective.clean)
    texts = [sample.texts[0] for sample in read_part(source.parts[0])]
    cut = 0
    for text, ids in zip(texts, wording.encode([t.text for t in texts], texts), strict=True):
        assert text.caption is not None
        dialogue = Dialogue(text.caption, text.rounds, text.text)
        assert ids == ranker.compose(dialogue)
        whole = LikelihoodRanker.load(tmp_path / "model", dtype="fp32").compose(dialogue)
        cut += len(whole) > len(ids)
    assert 0 < cut < len(texts)  # where three rounds came before, the oldest falls away


def test_the_loss_of_dialogues_is_what_the_ranker_thinks_of_right_and_wrong_answers(
    pretrained: Path, annotated: Batch, tmp_path: Path
) -> None:
    chosen = (
        SourceText("what color is it?", "human", (WeightedAnswer("red", 1.0),), None, "a ring", ()),
        SourceText(
            "where?", "human", (WeightedAnswer("left", 1.0),), None, "a star",
            (("is it a star?", "yes"),), ("left", "right", "above", "below"),
        ),
        SourceText(
            "is it red?", "human", (WeightedAnswer("no", 1.0),), None, "two", (), ("no", "yes")
        ),
    )  # fmt: skip
    annotated = replace(annotated, chosen=chosen)
    objective = start_finetuning(config_of("dialogue", pretrained))
    losses = losses_of(objective, annotated)
    ranker = load_ranker(objective.export(tmp_path)["filter"], max_tokens=24, dtype="fp32")
    seed = int(torch.randint(1 << 62, (1,), generator=torch.Generator().manual_seed(8)))
    total, best = [], []
    for row, (text, wrong) in enumerate(zip(chosen, wrong_answers(chosen, 2, seed), strict=True)):
        assert len(wrong) == (2, 2, 1)[row]
        dialogue = Dialogue(text.caption or "", text.rounds, text.text)
        answers = [text.answers[0].text, *wrong]
        (ranked,) = ranker.rank(annotated.pixels[row, None], [dialogue], [answers])
        signs = {c.index: 1 if c.index == 0 else -1 for c in ranked}
        total += [-F.logsigmoid(torch.tensor(signs[c.index] * c.score)) for c in ranked]
        best.append(ranked[0].index == 0)
    assert len(total) == 8  # what is lacking does not count
    expected = torch.stack(total).mean()
    torch.testing.assert_close(losses["loss"].detach(), expected, atol=1e-4, rtol=1e-4)
    assert losses["accuracy"].item() == pytest.approx(sum(best) / len(TEXTS))


def test_the_candidates_of_a_file_reach_the_loss(tmp_path: Path) -> None:
    path = write_dialogues(tmp_path / "toy", ToyTasksConfig(samples=3, image_px=32, kinds=4))
    source = open_source(SourceConfig(annotations=str(path)))
    check_sources("dialogue", [source])
    listed = json.loads(path.read_text())["data"]
    rounds = [one for dialog in listed["dialogs"] for one in dialog["dialog"]]
    texts = [sample.texts[0] for sample in read_part(source.parts[0])]
    for text, one in zip(texts, rounds, strict=True):
        assert [listed["answers"][n] for n in one["answer_options"]] == [*text.options]
        assert text.options[one["gt_index"]] == text.answers[0].text
