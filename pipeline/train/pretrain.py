"""Pre-train a network on clean and human-annotated pairs: ITC, ITM and LM together (BLIP §3.2)."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from transformers import BlipConfig

from models.blip import tokenizer
from models.blip.config import ORIGINAL, Size, blip_config
from models.blip.tokenizer import WordPiece
from models.checkpoints import checkpoint
from models.checkpoints.conversion import import_folder, vocabulary
from models.checkpoints.locate import CheckpointError
from pipeline.train.config import TrainConfig
from pipeline.train.objective import LossConfig, TowerConfig
from pipeline.train.objectives.pretrain import PretrainObjective
from shards.training.source import Source
from shards.training.source_reader import read_part

_OF_A_RANDOM_START = {"size", "image_size", "words", "vision", "text", "position_range"}
TEXTS_FOR_WORDS = 100_000  # of each source, that a vocabulary is learned from


class ModelConfig(TowerConfig):
    """The network that training starts from: random, or what `start` holds.

    `start` is a pre-training folder to go on from; sizes, words and positions are then its own, and
    other ones beside it are refused. Without it,
    `words` is a tokenizer's folder or vocab.txt, or the number of words to learn from the sources'
    texts; null is BERT's own vocabulary, from the hub. `vision` and `text` change single settings
    of the size, by the names of transformers' BlipVisionConfig and BlipTextConfig.
    """

    start: str | None = None
    size: Size = "base"
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


def write_start(path: Path, config: PretrainConfig, sources: Sequence[Source]) -> None:
    """Write the random network that a training starts from, the same for the same seed."""
    write_random(path, config.model, _words(config.model.words, sources), config.seed)


def write_random(path: Path, model: ModelConfig, words: WordPiece, seed: int) -> None:
    """Write a random network that reads these words."""
    checkpoint.create(
        path,
        "pretrain",
        shape(model, words),
        words,
        seed=seed,
        settings=ORIGINAL,
        position_range=model.position_range,
    )


def start_pretraining(path: Path, config: PretrainConfig) -> PretrainObjective:
    """Load what a training starts from; queues begin empty."""
    content = import_folder(path).content
    if content.role != "pretrain":
        raise CheckpointError(
            f"{path} holds a {content.role}; pre-training goes on from a pretrain folder"
        )
    objective = PretrainObjective(content, config.model, config.loss)
    if config.model.compile:
        objective.compile_towers()
    return objective


def _words(words: str | int | None, sources: Sequence[Source]) -> WordPiece:
    if isinstance(words, int):
        return tokenizer.train(_texts(sources), words)
    return vocabulary(None if words is None else Path(words))


def _texts(sources: Sequence[Source]) -> Iterator[str]:
    """Read the first texts of each source."""
    for source in sources:
        samples = chain.from_iterable(map(read_part, source.parts))
        texts = (text.text for sample in samples for text in sample.texts)
        yield from islice(texts, TEXTS_FOR_WORDS)


def shape(model: ModelConfig, words: WordPiece) -> BlipConfig:
    """Describe the network of a model section; ValueError names a setting that there is not."""
    config = blip_config(model.size, **words.config_fields, image_size=model.image_size)
    for part, changes in ((config.vision_config, model.vision), (config.text_config, model.text)):
        for name, value in changes.items():
            if not hasattr(part, name):
                raise ValueError(f"model: {type(part).__name__} has no setting {name!r}")
            setattr(part, name, value)
    config.text_config.encoder_hidden_size = config.vision_config.hidden_size
    return config
