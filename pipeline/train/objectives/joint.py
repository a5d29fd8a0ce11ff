"""Learn to caption and to filter in one network, and to answer questions if some join in."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from models.blip.config import Role
from models.checkpoints.conversion import for_hugging_face, import_folder
from models.checkpoints.folder import CheckpointContent
from models.checkpoints.transfer import transfer
from pipeline.train.dataloader import Batch
from pipeline.train.finetune_config import FinetuneConfig
from pipeline.train.objective import StepContext
from pipeline.train.objectives.pretrain import PretrainObjective
from pipeline.train.objectives.vqa import answer_loss
from pipeline.train.state import write_checkpoint


class JointObjective(PretrainObjective):
    """ITC + ITM + LM of one network that is captioner and filter.

    A batch of questions, where some join in, has the loss of their answers instead.
    """

    def __init__(self, content: CheckpointContent, config: FinetuneConfig) -> None:
        super().__init__(content, config.model, config.loss, config.prompt)
        self._answers = config.questions is not None

    def forward(self, batch: Batch, moment: StepContext) -> dict[str, Tensor]:
        """Compute the losses of the batch's kind."""
        if not batch.chosen or not batch.chosen[0].answers:
            return super().forward(batch, moment)
        loss = answer_loss(self, self.network, batch, moment)
        return {"loss": loss, "answers": loss}

    def export(self, folder: Path) -> Mapping[str, Path]:
        """Write the whole, and captioner, filter and what answers out of it."""
        written = {**super().export(folder)}
        whole = import_folder(written["pretrain"]).content
        roles: tuple[Role, ...] = ("captioner", "filter", "vqa")
        for role in roles if self._answers else roles[:2]:
            written[role] = folder / role
            if not written[role].exists():
                part = transfer(whole, role, 0) if role == "vqa" else for_hugging_face(whole, role)
                write_checkpoint(written[role], part)
        return written
