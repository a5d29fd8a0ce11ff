"""Finetuning for questions and for pairs of pictures, against transformers and the role itself."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BlipForQuestionAnswering

from models.blip.config import ORIGINAL, blip_config
from models.blip.framing import tokenize_batch
from models.blip.tokenizer import WordPiece, train
from models.checkpoints import checkpoint
from models.checkpoints.weights import CheckpointError
from models.roles.dialogue import LikelihoodRanker, load_ranker
from models.roles.nlvr import NlvrModel
from models.roles.vqa import VqaModel
from models.training.dialogue import Dialogue
from models.training.workers import ALONE
from pipeline.toy.dialogue import write_dialogues
from pipeline.toy.tasks import ToyTasksConfig, write_questions, write_statements
from pipeline.toy.world import corpus
from pipeline.train import finetune
from pipeline.train.dataloader import Batch, TextTransform
from pipeline.train.finetune_config import FinetuneConfig
from pipeline.train.objective import Objective, StepContext
from pipeline.train.objectives.answer_negatives import wrong_answers
from shards.training.annotation import SourceText, WeightedAnswer
from shards.training.source import SourceConfig
from shards.training.source_reader import open_source, read_part

ROWS, SIDE = 3, 16
ANSWERS = (
    (WeightedAnswer("red", 0.9), WeightedAnswer("a blue ring", 0.1)),
    (WeightedAnswer("two", 1.0),),
    (WeightedAnswer("left", 0.5), WeightedAnswer("right", 0.3), WeightedAnswer("above", 0.1)),
)
TEXTS = ("a red ring", "a blue star above a green ring", "there is a ring left of a star")
LABELS = (True, False, True)


@pytest.fixture(scope="module")
def words() -> WordPiece:
    return train(corpus(), 120)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory, words: WordPiece) -> Path:
    path = tmp_path_factory.mktemp("pretrained") / "start"
    shape = blip_config(
        "tiny", vocab_size=words.size, sep_id=words.sep_id, pad_id=words.pad_id, image_size=SIDE
    )
    shape.vision_config.num_hidden_layers = 1
    shape.text_config.num_hidden_layers = 2
    checkpoint.create(path, "pretrain", shape, words, seed=2, settings=ORIGINAL)
    return path


@pytest.fixture
def batch(words: WordPiece) -> Batch:
    """Questions, or statements, of different lengths about pictures of noise."""
    framed = tokenize_batch(words.encode(TEXTS), words, words.cls_id, 30, torch.device("cpu"))
    draw = torch.Generator().manual_seed(1)
    pictures = torch.randint(0, 256, (2, ROWS, 3, SIDE, SIDE), generator=draw, dtype=torch.uint8)
    chosen = zip(ANSWERS, LABELS, strict=True)
    return Batch(
        pixels=pictures[0],
        ids=framed.ids,
        mask=framed.mask,
        image_ids=torch.arange(ROWS),
        text_hashes=torch.arange(ROWS),
        texts=[*TEXTS],
        keys=[""] * ROWS,
        positions={},
        left_out=Counter(),
        chosen=tuple(SourceText("", "human", answers, label) for answers, label in chosen),
        right=pictures[1],
    )


def config_of(task: str, start: Path, **more: Any) -> FinetuneConfig:
    return FinetuneConfig.model_validate(
        {
            "task": task,
            "data": {"sources": (SourceConfig(annotations="none"),), "max_tokens": 24},
            "model": {"start": str(start), "dropout": 0.0},
            **more,
        }
    )


def losses(objective: Objective, batch: Batch) -> dict[str, Tensor]:
    objective.network.train()
    found: dict[str, Tensor] = objective(batch, StepContext(0, torch.Generator(), ALONE))
    return found


def test_the_loss_of_answers_is_that_of_transformers_one_by_one(
    pretrained: Path, batch: Batch, words: WordPiece, tmp_path: Path
) -> None:
    objective = finetune.start_finetuning(config_of("vqa", pretrained))
    found = losses(objective, batch)
    written = objective.export(tmp_path)["vqa"]
    theirs = BlipForQuestionAnswering.from_pretrained(written).eval()
    pixels, total = objective.normalise(batch.pixels), torch.zeros(())
    with torch.no_grad():
        for row, answers in enumerate(ANSWERS):
            ids = batch.ids[row, batch.mask[row]][None].clone()
            ids[:, 0] = words.enc_id
            states = theirs.vision_model(pixels[row, None]).last_hidden_state
            question = theirs.text_encoder(ids, encoder_hidden_states=states).last_hidden_state
            for answer in answers:
                read = torch.tensor([[words.dec_id, *words.encode([answer.text])[0], words.sep_id]])
                logits = theirs.text_decoder(read, encoder_hidden_states=question).logits
                each = F.cross_entropy(
                    logits[0, :-1], read[0, 1:], label_smoothing=0.1, reduction="sum"
                )
                total += answer.weight * each
    torch.testing.assert_close(found["loss"].detach(), total / ROWS, atol=1e-4, rtol=1e-5)
    assert found.keys() == {"loss", "answers"}


def test_the_loss_of_statements_is_what_the_reasoner_thinks_of_their_labels(
    pretrained: Path, batch: Batch, tmp_path: Path
) -> None:
    objective = finetune.start_finetuning(config_of("nlvr", pretrained))
    found = losses(objective, batch)
    reasoner = NlvrModel.load(objective.export(tmp_path)["nlvr"], dtype="fp32")
    assert batch.right is not None
    chances = []
    for row, label in enumerate(LABELS):
        (chance,) = reasoner.reason(batch.pixels[row, None], batch.right[row, None], [TEXTS[row]])
        chances.append(chance if label else 1 - chance)
    expected = -torch.tensor(chances).log().mean()
    torch.testing.assert_close(found["loss"].detach(), expected, atol=1e-4, rtol=1e-4)
    assert found["accuracy"] == sum(chance > 0.5 for chance in chances) / ROWS


def test_a_dialogue_is_learned_as_it_is_ranked(pretrained: Path, tmp_path: Path) -> None:
    """By likelihood: the ids of the feed are those that the role composes, history included."""
    path = write_dialogues(tmp_path / "toy", ToyTasksConfig(samples=6, image_px=32, kinds=4))
    config = config_of("dialogue", pretrained, dialogue={"by": "likelihood"})
    objective = finetune.start_finetuning(config)
    ranker = LikelihoodRanker.load(objective.export(tmp_path)["vqa"], max_tokens=24, dtype="fp32")
    source = open_source(SourceConfig(annotations=str(path)))
    finetune.check_sources("dialogue", [source])
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
    pretrained: Path, batch: Batch, tmp_path: Path
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
    batch = replace(batch, chosen=chosen)
    objective = finetune.start_finetuning(config_of("dialogue", pretrained))
    found = losses(objective, batch)
    ranker = load_ranker(objective.export(tmp_path)["filter"], max_tokens=24, dtype="fp32")
    seed = int(torch.randint(1 << 62, (1,), generator=torch.Generator()))
    total, best = [], []
    for row, (text, wrong) in enumerate(zip(chosen, wrong_answers(chosen, 2, seed), strict=True)):
        assert len(wrong) == (2, 2, 1)[row]
        dialogue = Dialogue(text.caption or "", text.rounds, text.text)
        answers = [text.answers[0].text, *wrong]
        (ranked,) = ranker.rank(batch.pixels[row, None], [dialogue], [answers])
        signs = {c.index: 1 if c.index == 0 else -1 for c in ranked}
        total += [-F.logsigmoid(torch.tensor(signs[c.index] * c.score)) for c in ranked]
        best.append(ranked[0].index == 0)
    assert len(total) == 8  # what is lacking does not count
    expected = torch.stack(total).mean()
    torch.testing.assert_close(found["loss"].detach(), expected, atol=1e-4, rtol=1e-4)
    assert found["accuracy"].item() == pytest.approx(sum(best) / ROWS)


def test_the_candidates_of_a_file_reach_the_loss(tmp_path: Path) -> None:
    path = write_dialogues(tmp_path / "toy", ToyTasksConfig(samples=3, image_px=32, kinds=4))
    source = open_source(SourceConfig(annotations=str(path)))
    finetune.check_sources("dialogue", [source])
    listed = json.loads(path.read_text())["data"]
    rounds = [one for dialog in listed["dialogs"] for one in dialog["dialog"]]
    texts = [sample.texts[0] for sample in read_part(source.parts[0])]
    for text, one in zip(texts, rounds, strict=True):
        assert [listed["answers"][n] for n in one["answer_options"]] == [*text.options]
        assert text.options[one["gt_index"]] == text.answers[0].text


@pytest.mark.parametrize("task", ["vqa", "nlvr", "dialogue"])
def test_gradients_reach_everything(pretrained: Path, batch: Batch, task: str) -> None:
    """What no loss reaches would stop a training of several workers."""
    objective = finetune.start_finetuning(config_of(task, pretrained))
    losses(objective, batch)["loss"].backward()
    named = objective.network.named_parameters()
    assert not [name for name, p in named if p.requires_grad and p.grad is None]


@pytest.mark.parametrize("task", ["vqa", "nlvr", "dialogue"])
def test_a_few_steps_learn_the_batch_and_training_goes_on_from_what_was_written(
    pretrained: Path, batch: Batch, task: str, tmp_path: Path
) -> None:
    objective = finetune.start_finetuning(config_of(task, pretrained))
    optimiser, found = torch.optim.AdamW(objective.network.parameters(), lr=2e-3), []
    for _ in range(12):
        loss = losses(objective, batch)["loss"]
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        found.append(loss.item())
    assert found[-1] < found[0] / 2
    (written,) = objective.export(tmp_path).values()
    again = finetune.start_finetuning(config_of(task, written))
    with torch.no_grad():
        expected = losses(objective, batch)["loss"]
    torch.testing.assert_close(losses(again, batch)["loss"].detach(), expected)


def test_what_was_trained_answers(pretrained: Path, batch: Batch, tmp_path: Path) -> None:
    written = finetune.start_finetuning(config_of("vqa", pretrained)).export(tmp_path)["vqa"]
    answerer = VqaModel.load(written, dtype="fp32")
    assert len(answerer.answer(batch.pixels, ["what color is the ring?"] * ROWS)) == ROWS


def test_only_pretraining_becomes_a_task(pretrained: Path, tmp_path: Path) -> None:
    vqa = finetune.start_finetuning(config_of("vqa", pretrained)).export(tmp_path)["vqa"]
    with pytest.raises(CheckpointError, match=r"starts from a pretrain folder.*found vqa"):
        finetune.start_finetuning(config_of("nlvr", vqa))


def test_a_source_must_be_of_the_tasks_kind(tmp_path: Path) -> None:
    few = ToyTasksConfig(samples=2, image_px=32)
    files: dict[str, Any] = {
        "vqa": write_questions(tmp_path / "vqa", few),
        "nlvr": write_statements(tmp_path / "nlvr", few),
    }
    sources = {
        task: open_source(SourceConfig(annotations=str(path))) for task, path in files.items()
    }
    for task in ("vqa", "nlvr"):
        finetune.check_sources(task, [sources[task]])
    for task, other in (("vqa", "nlvr"), ("nlvr", "vqa"), ("captioner", "vqa")):
        with pytest.raises(ValueError, match=f"{task} learns from .* has .*Name a source"):
            finetune.check_sources(task, [sources[other]])


def test_a_joint_network_answers_as_one_that_answers_alone(
    pretrained: Path, batch: Batch, tmp_path: Path
) -> None:
    """Both start from the same pre-training, and in both the decoder looks at the question."""
    questions = {"questions": {"sources": [{"annotations": "none"}]}}
    fields = config_of("joint", pretrained).model_dump() | questions
    joint = finetune.start_finetuning(FinetuneConfig.model_validate(fields))
    alone = finetune.start_finetuning(config_of("vqa", pretrained))
    found = losses(joint, batch)
    assert found.keys() == {"loss", "answers"}
    torch.testing.assert_close(found["loss"], losses(alone, batch)["loss"], atol=1e-5, rtol=1e-5)
    written = joint.export(tmp_path)
    assert written.keys() == {"pretrain", "captioner", "filter", "vqa"}
    out = finetune.start_finetuning(config_of("vqa", written["vqa"]))
    torch.testing.assert_close(losses(out, batch)["loss"], found["loss"], atol=1e-5, rtol=1e-5)


def test_what_a_task_does_not_learn_from_is_refused(pretrained: Path) -> None:
    fields = config_of("joint", pretrained).model_dump()
    fields["questions"] = {"sources": [{"annotations": "vqa.json"}]}
    assert FinetuneConfig.model_validate(fields).questions
    with pytest.raises(ValueError, match="questions join in a joint finetuning only, not in vqa"):
        FinetuneConfig.model_validate(fields | {"task": "vqa"})
    captions = {"captions": {"captioner": "c"}}
    assert FinetuneConfig.model_validate(config_of("filter", pretrained).model_dump() | captions)
    for task in ("captioner", "joint", "vqa"):
        with pytest.raises(ValueError, match=f"negatives of a filter; leave them out for {task}"):
            FinetuneConfig.model_validate(config_of(task, pretrained).model_dump() | captions)
    for task in ("vqa", "filter"):
        with pytest.raises(ValueError, match=f"leave it out for {task}"):
            config_of(task, pretrained, dialogue={"by": "match"})
