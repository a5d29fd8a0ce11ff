"""Learn which text belongs to which picture: ITC + ITM of a filter (BLIP §3.2, §5.1)."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from models.blip.networks import MatchNetwork
from models.checkpoints.folder import CheckpointContent
from models.training.contrast import Pairs
from models.training.finetuning import NegativeCaptions, RetrievalNetwork, RetrievalSettings
from models.training.momentum import FeatureQueue
from models.training.schedule import distillation_alpha
from pipeline.train.dataloader import Batch
from pipeline.train.finetune_config import FinetuneConfig
from pipeline.train.objective import Objective, StepContext, trainable
from pipeline.train.objectives.caption_negatives import CaptionNegatives


class RetrievalObjective(Objective):
    """ITC + ITM of a filter, which is a retrieval model too."""

    network: RetrievalNetwork

    def __init__(self, content: CheckpointContent, config: FinetuneConfig) -> None:
        super().__init__(trainable(RetrievalNetwork, content, config.model), content)
        self._loss, self._across = config.loss, config.across
        width = content.config.image_text_hidden_size
        self._beside = [FeatureQueue(width, config.loss.queue, ids=True)]
        self._captions, self._seed = config.captions, config.seed
        self._writer: CaptionNegatives | None = None

    def forward(self, batch: Batch, moment: StepContext) -> dict[str, Tensor]:
        """Compute both losses and their sum."""
        loss = self._loss
        settings = RetrievalSettings(
            self.first_token,
            alpha=distillation_alpha(loss.alpha, moment.epoch, loss.ramp_epochs),
            momentum=moment.follow(loss.momentum),
            across=self._across,
        )
        pairs = self.pairs(batch, moment.workers)
        losses = self.network(
            pairs,
            self.queue,
            settings,
            moment.generator,
            workers=moment.workers,
            captions=self._write(batch, moment.epoch, pairs),
        )
        parts = {"itc": losses.itc, "itm": losses.itm}
        return {"loss": losses.total, **parts, "temperature": losses.temperature}

    def _write(self, batch: Batch, epoch: float, pairs: Pairs) -> NegativeCaptions | None:
        """Let the captioner write, if there is one; it is loaded where the network is."""
        if self._captions is None:
            return None
        if self._writer is None:
            device = pairs.ids.device
            self._writer = CaptionNegatives(self._captions, self.about, self._seed, device)
        return self._writer.write(batch, epoch, pairs.ids.shape[1])

    def export(self, folder: Path) -> Mapping[str, Path]:
        """Write the filter, without its momentum copies."""
        wanted = MatchNetwork(self.about.config)
        tensors = self.network.state_dict()
        wanted.load_state_dict({name: tensors[name] for name in wanted.state_dict()})
        return {"filter": self.write(folder / "model", wanted)}
