"""The loss of statements about two pictures, against the role that judges them."""

from pathlib import Path

import torch

from models.roles.nlvr import NlvrModel
from pipeline.train.dataloader import Batch
from pipeline.train.finetune import start_finetuning
from tests.support.small_finetuning import LABELS, TEXTS, config_of, losses_of


def test_the_loss_of_statements_is_what_the_reasoner_thinks_of_their_labels(
    pretrained: Path, annotated: Batch, tmp_path: Path
) -> None:
    objective = start_finetuning(config_of("nlvr", pretrained))
    losses = losses_of(objective, annotated)
    reasoner = NlvrModel.load(objective.export(tmp_path)["nlvr"], dtype="fp32")
    assert annotated.right is not None
    chances = []
    for row, label in enumerate(LABELS):
        (chance,) = reasoner.reason(
            annotated.pixels[row, None], annotated.right[row, None], [TEXTS[row]]
        )
        chances.append(chance if label else 1 - chance)
    expected = -torch.tensor(chances).log().mean()
    torch.testing.assert_close(losses["loss"].detach(), expected, atol=1e-4, rtol=1e-4)
    assert losses["accuracy"] == sum(chance > 0.5 for chance in chances) / len(TEXTS)
