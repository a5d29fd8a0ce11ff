"""Learn all that BLIP's pre-training teaches: ITC, ITM and LM together (BLIP §3.2)."""

from torch import Tensor

from models.checkpoints.folder import CheckpointContent
from models.training.momentum import FeatureQueue
from models.training.pretraining import PretrainNetwork, StepSettings
from models.training.schedule import distillation_alpha
from pipeline.train.config import LossConfig, TowerConfig
from pipeline.train.dataloader import Batch
from pipeline.train.objective import Objective, StepContext, trainable


class PretrainObjective(Objective):
    """ITC + ITM + LM of a pre-training network; `prompt` goes before each text for LM alone."""

    network: PretrainNetwork

    def __init__(
        self, content: CheckpointContent, towers: TowerConfig, loss: LossConfig, prompt: str = ""
    ) -> None:
        super().__init__(trainable(PretrainNetwork, content, towers), content)
        self._loss = loss
        self._prompt = tuple(content.tokenizer.encode([prompt])[0])
        # by them the network knows equal pictures and texts, which ITC then leaves out
        masked = loss.itc_negatives == "masked"
        width = content.config.image_text_hidden_size
        self._beside = [FeatureQueue(width, loss.queue, ids=masked, hashes=masked)]

    def forward(self, batch: Batch, moment: StepContext) -> dict[str, Tensor]:
        """Compute the three losses and their sum."""
        loss = self._loss
        settings = StepSettings(
            self.first_token,
            self.about.tokenizer.dec_id,
            alpha=distillation_alpha(loss.alpha, moment.epoch, loss.ramp_epochs),
            momentum=moment.follow(loss.momentum),
            negatives=loss.negatives,
            floor=loss.negatives_floor,
            prompt=self._prompt,
        )
        pairs = self.pairs(batch, moment.workers)
        losses = self.network(pairs, self.queue, settings, moment.generator, workers=moment.workers)
        parts = {"itc": losses.itc, "itm": losses.itm, "lm": losses.lm}
        return {"loss": losses.total, **parts, "temperature": losses.temperature}
