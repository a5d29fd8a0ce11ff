"""Learn which answer fits a dialogue about a picture, by match (BLIP §5.5)."""

import torch
from torch import Tensor

from models.blip.framing import tokenize_batch
from models.blip.networks import MatchNetwork
from models.blip.tokenizer import normalise_question
from models.checkpoints.folder import CheckpointContent
from models.training.dialogue import Dialogue, compose_answered, match_loss
from pipeline.train.dataloader import Batch
from pipeline.train.finetune_config import DialogueConfig, FinetuneConfig
from pipeline.train.objective import Objective, StepContext, trainable
from pipeline.train.objectives.answer_negatives import wrong_answers


class DialogueObjective(Objective):
    """ITM of a dialogue with its true answer, and with wrong ones, in sight of the picture."""

    network: MatchNetwork
    clean = staticmethod(normalise_question)

    def __init__(self, content: CheckpointContent, config: FinetuneConfig) -> None:
        super().__init__(trainable(MatchNetwork, content, config.model), content)
        self._wrong = (config.dialogue or DialogueConfig()).wrong
        self._max_tokens = config.data.max_tokens
        for unused in (self.network.vision_proj, self.network.text_proj):  # ITC's
            unused.requires_grad_(False)

    def forward(self, batch: Batch, moment: StepContext) -> dict[str, Tensor]:
        """Compute ITM, and the share of questions whose true answer scores highest."""
        pixels = self.normalise(batch.pixels)
        pieces, counted = self._compose(batch, moment.generator)
        framed = tokenize_batch(
            pieces, self.about.tokenizer, self.first_token, self._max_tokens, pixels.device
        )
        weights = torch.tensor(counted, device=pixels.device)
        images = self.network.vision_model(pixels)
        loss, accuracy = match_loss(self.network, framed, images, weights, moment.workers)
        return {"loss": loss, "itm": loss, "accuracy": accuracy}

    def _compose(
        self, batch: Batch, generator: torch.Generator
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Compose each question's texts, the true answer first, and how much each counts.

        All questions have as many texts: where wrong answers lack, empty ones count nothing.
        """
        # torch seeds what Python draws, so that the draw is alike on all workers and after a kill
        draw = torch.randint(1 << 62, (1,), generator=generator, device=generator.device)
        pieces, counted = [], []
        drawn = wrong_answers(batch.chosen, self._wrong, int(draw))
        for text, wrong in zip(batch.chosen, drawn, strict=True):
            lacking = self._wrong - len(wrong)
            answers = [text.answers[0].text, *wrong, *[""] * lacking]
            dialogue = Dialogue(text.caption or "", text.rounds, text.text)
            pieces += compose_answered(self.about.tokenizer, self._max_tokens, dialogue, answers)
            counted.append([1.0] * (1 + len(wrong)) + [0.0] * lacking)
        return pieces, counted
