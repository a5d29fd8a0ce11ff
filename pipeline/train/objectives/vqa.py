"""Learn to answer questions about a picture by writing the answers (BLIP §5.3)."""

import torch
from torch import Tensor

from models.blip.framing import tokenize_batch
from models.blip.networks import VqaNetwork
from models.blip.tokenizer import normalise_question
from models.checkpoints.folder import CheckpointContent
from models.decoding.answering import Questions, vqa_loss
from models.training.pretraining import PretrainNetwork
from pipeline.train.dataloader import Batch
from pipeline.train.finetune_config import FinetuneConfig
from pipeline.train.objective import Objective, StepContext, trainable


class VqaObjective(Objective):
    """The likelihood of a question's answers, each as heavy as its share of those who answered."""

    network: VqaNetwork
    clean = staticmethod(normalise_question)

    def __init__(self, content: CheckpointContent, config: FinetuneConfig) -> None:
        super().__init__(trainable(VqaNetwork, content, config.model), content)

    def forward(self, batch: Batch, moment: StepContext) -> dict[str, Tensor]:
        """Compute the loss of the answers."""
        loss = answer_loss(self, self.network, batch, moment)
        return {"loss": loss, "answers": loss}


def answer_loss(
    objective: Objective, network: VqaNetwork | PretrainNetwork, batch: Batch, moment: StepContext
) -> Tensor:
    """Compute the loss of a batch's answers."""
    pairs, about = objective.pairs(batch, moment.workers), objective.about
    ids, words = pairs.with_first_token(objective.first_token), about.tokenizer
    hidden = network.questions(ids, pairs.mask, network.vision_model(pairs.pixels))
    counts = torch.tensor([len(text.answers) for text in batch.chosen], device=ids.device)
    answers = [answer for text in batch.chosen for answer in text.answers]
    weights = torch.tensor([answer.weight for answer in answers], device=ids.device)
    limit = about.config.text_config.max_position_embeddings
    pieces = words.encode([answer.text for answer in answers])
    framed = tokenize_batch(pieces, words, words.dec_id, limit, ids.device)
    return vqa_loss(network, Questions(hidden, pairs.mask), framed, counts, weights)
