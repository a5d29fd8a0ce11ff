"""One network that is captioner and filter, and answers questions."""

from pathlib import Path

import torch
from transformers import BlipForConditionalGeneration, BlipForImageTextRetrieval

from models.checkpoints.conversion import import_folder
from pipeline.train.dataloader import Batch
from pipeline.train.finetune import start_finetuning
from tests.support.small_finetuning import config_of, learn, losses_of


def test_one_network_becomes_both(pretrained: Path, pairs: Batch, tmp_path: Path) -> None:
    objective = start_finetuning(config_of("joint", pretrained))
    before, *_, after = learn(objective, pairs, 12)
    assert after < before
    written = objective.export(tmp_path)
    assert written.keys() == {"pretrain", "captioner", "filter"}
    trained = objective.network.state_dict()
    for role in ("captioner", "filter"):
        tensors = import_folder(written[role]).content.tensors
        for name in ("vision_model.post_layernorm.weight", "vision_model.encoder.layers.1.mlp.fc1"):
            for full, tensor in tensors.items():
                if full.startswith(name):
                    assert torch.equal(tensor, trained[full]), full
    BlipForConditionalGeneration.from_pretrained(written["captioner"])
    BlipForImageTextRetrieval.from_pretrained(written["filter"])
    assert objective.export(tmp_path) == written  # as after a kill: what is there stays


def test_a_joint_network_answers_as_one_that_answers_alone(
    pretrained: Path, annotated: Batch, tmp_path: Path
) -> None:
    """Both start from the same pre-training, and in both the decoder looks at the question."""
    questions = {"sources": [{"annotations": "none"}]}
    joint = start_finetuning(config_of("joint", pretrained, questions=questions))
    alone = start_finetuning(config_of("vqa", pretrained))
    losses = losses_of(joint, annotated)
    assert losses.keys() == {"loss", "answers"}
    expected = losses_of(alone, annotated)["loss"]
    torch.testing.assert_close(losses["loss"], expected, atol=1e-5, rtol=1e-5)
    written = joint.export(tmp_path)
    assert written.keys() == {"pretrain", "captioner", "filter", "vqa"}
    out = start_finetuning(config_of("vqa", written["vqa"]))
    again = losses_of(out, annotated)["loss"]
    torch.testing.assert_close(again, losses["loss"], atol=1e-5, rtol=1e-5)
