"""Learn to caption: LM alone (BLIP §3.2, §5.2)."""

from torch import Tensor

from models.blip.networks import CaptionNetwork
from models.checkpoints.folder import CheckpointContent
from models.training.captioning import language_loss
from pipeline.train.dataloader import Batch
from pipeline.train.finetune_config import FinetuneConfig
from pipeline.train.objective import Objective, StepContext, trainable


class CaptionObjective(Objective):
    """LM of a captioner, which is given the prompt and does not learn it."""

    network: CaptionNetwork

    def __init__(self, content: CheckpointContent, config: FinetuneConfig) -> None:
        super().__init__(trainable(CaptionNetwork, content, config.model), content)
        self._prompt = tuple(content.tokenizer.encode([config.prompt])[0])

    def forward(self, batch: Batch, moment: StepContext) -> dict[str, Tensor]:
        """Compute LM."""
        pairs = self.pairs(batch, moment.workers)
        ids, mask = pairs.with_prompt(self.about.tokenizer.dec_id, self._prompt)
        loss = language_loss(
            self.network.text_decoder,
            ids,
            mask,
            self.network.vision_model(pairs.pixels),
            prompt=len(self._prompt),
            learned=pairs.learned,
            workers=moment.workers,
        )
        return {"loss": loss, "lm": loss}
