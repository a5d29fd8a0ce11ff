"""Learn whether a statement about two pictures is true (BLIP §5.4)."""

import torch
from torch import Tensor

from models.blip.nlvr import NlvrNetwork
from models.checkpoints.folder import CheckpointContent
from models.roles.nlvr import nlvr_loss
from pipeline.train.dataloader import Batch
from pipeline.train.finetune_config import FinetuneConfig
from pipeline.train.objective import Objective, StepContext, trainable


class NlvrObjective(Objective):
    """Whether a statement about two pictures is true."""

    network: NlvrNetwork

    def __init__(self, content: CheckpointContent, config: FinetuneConfig) -> None:
        super().__init__(trainable(NlvrNetwork, content, config.model), content)

    def forward(self, batch: Batch, moment: StepContext) -> dict[str, Tensor]:
        """Compute the cross-entropy, and the share of statements that are judged right."""
        network, pairs = self.network, self.pairs(batch, moment.workers)
        assert batch.right is not None  # statements alone are let in
        pixels = torch.cat([pairs.pixels, self.normalise(batch.right)])
        left, right = network.vision_model(pixels).chunk(2)
        ids = pairs.with_first_token(self.about.tokenizer.enc_id)
        logits = network(ids, pairs.mask, left, right)
        labels = torch.tensor([int(bool(text.label)) for text in batch.chosen], device=ids.device)
        judged_right = (logits.argmax(-1) == labels).float().mean()
        loss = nlvr_loss(logits, labels)
        return {"loss": loss, "statements": loss, "accuracy": judged_right}
