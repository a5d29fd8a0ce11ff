"""The config of a finetuning: its task, start and losses, and the sections of single tasks."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from models.decoding.config import Decoding
from models.training.config import Across
from pipeline.config import Config
from pipeline.train.config import LossConfig, TowerConfig, TrainConfig
from pipeline.train.tasks import Task
from shards.training.source import SourceConfig

PROMPT = "a picture of "


class StartConfig(TowerConfig):
    """The network that finetuning starts from: a pre-training folder, or one of the same role."""

    start: str
    image_size: int | None = Field(None, ge=1, description="pixels; null: as the start has it")


class QuestionsConfig(Config):
    """Questions that a joint network learns to answer, in a share of its steps."""

    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    share: float = Field(0.25, gt=0, lt=1, description="of the steps")
    max_tokens: int = Field(35, ge=3, description="of a question, special tokens included")


class DialogueConfig(Config):
    """How the answers of dialogues are learned, and so how they are ranked afterwards."""

    by: Literal["match", "likelihood"] = Field(
        "match", description="whether an answer is true, as in the paper; or writing it"
    )
    wrong: int = Field(2, ge=1, le=99, description="answers beside each true one, by match")


class OwnCaptionsConfig(Decoding):
    """How captions are written, and when one is wrong: it shares few words with every reference.

    `overlap` is the largest share of common words (of all that the two have) of a caption that
    counts as wrong of its own picture; at 0 only other pictures' captions are negatives.
    """

    overlap: float = Field(0.3, ge=0, le=1)


class CaptionNegativesConfig(OwnCaptionsConfig):
    """Which captioner writes, and how."""

    captioner: str = Field(description="a captioner's folder")


class FinetuneConfig(TrainConfig):
    """All of a finetuning that changes its result."""

    task: Task
    model: StartConfig
    loss: LossConfig = LossConfig(ramp_epochs=1)
    prompt: str = Field(PROMPT, description="before each text that a captioner learns")
    across: Across = Field("everything", description="what comes from other workers' batches")
    captions: CaptionNegativesConfig | None = Field(None, description="more negatives of a filter")
    questions: QuestionsConfig | None = Field(None, description="that join in a joint finetuning")
    dialogue: DialogueConfig | None = Field(None, description="how answers are learned")

    @model_validator(mode="before")
    @classmethod
    def _fill_dialogue(cls, values: Any) -> Any:  # noqa: ANN401 - whatever YAML gives
        """Write down how dialogues are learned where it is left to us."""
        if isinstance(values, dict) and values.get("task") == "dialogue":
            return {**values, "dialogue": values.get("dialogue") or {}}
        return values

    @model_validator(mode="after")
    def _check_task(self) -> Self:
        if self.questions is not None and self.task != "joint":
            raise ValueError(f"questions join in a joint finetuning only, not in {self.task}")
        if self.captions is not None and self.task not in {"filter", "retrieval"}:
            raise ValueError(f"captions are negatives of a filter; leave them out for {self.task}")
        if self.dialogue is not None and self.task != "dialogue":
            raise ValueError(f"dialogue is for that task only; leave it out for {self.task}")
        return self
