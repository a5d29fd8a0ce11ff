"""The config of a pre-training: its network and its losses."""

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.train.config import LossConfig, TowerConfig, TrainConfig

_OF_A_RANDOM_START = {"size", "image_size", "words", "vision", "text", "position_range"}


class ModelConfig(TowerConfig):
    """The network that training starts from: random, or what `start` holds.

    `start` is a pre-training folder to go on from; sizes, words and positions are then its own, and
    other ones beside it are refused. Without it,
    `words` is a tokenizer's folder or vocab.txt, or the number of words to learn from the sources'
    texts; null is BERT's own vocabulary, from the hub. `vision` and `text` change single settings
    of the size, by the names of transformers' BlipVisionConfig and BlipTextConfig.
    """

    start: str | None = None
    size: Literal["tiny", "base", "large"] = "base"
    image_size: int | None = Field(224, ge=1, description="pixels; null: the size's own")
    words: str | int | None = Field(None, description="a folder, a vocab.txt, or how many to learn")
    vision: dict[str, int | float] = Field(default_factory=dict)
    text: dict[str, int | float] = Field(default_factory=dict)
    position_range: float | None = Field(
        None, gt=0, description="of the patches' random positions; null: as all weights"
    )

    @model_validator(mode="after")
    def _check_start(self) -> Self:
        if self.start is None:
            return self
        # a default beside a start is no wish: recipes name every key
        wishes = self.model_dump(include=_OF_A_RANDOM_START, exclude_defaults=True)
        if given := sorted(name for name, value in wishes.items() if value is not None):
            raise ValueError(
                f"{', '.join(given)} beside start: the network of {self.start} has its own, which "
                f"nothing changes. Leave out {', '.join(f'model.{name}' for name in given)}, or "
                "model.start"
            )
        return self

    def going_on(self, start: str) -> "ModelConfig":
        """Copy how the towers are trained; all else is what `start` holds."""
        towers = {name: getattr(self, name) for name in TowerConfig.model_fields}
        return ModelConfig(start=start, **towers)


class PretrainConfig(TrainConfig):
    """All of a pre-training that changes its result."""

    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
