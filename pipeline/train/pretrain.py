"""Pre-train a network on clean and human-annotated pairs: ITC, ITM and LM together (BLIP §3.2)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from transformers import BlipConfig

from models.blip import tokenizer
from models.blip.config import ORIGINAL, Size, blip_config
from models.blip.tokenizer import WordPiece
from models.checkpoints import checkpoint
from models.checkpoints.conversion import import_folder, vocabulary
from models.checkpoints.folder import CheckpointContent
from models.checkpoints.weights import CheckpointError
from models.training.momentum import FeatureQueue
from models.training.negatives import Rule
from models.training.pretraining import PretrainNetwork, StepSettings
from models.training.schedule import distillation_alpha
from pipeline.train.dataloader import Batch
from pipeline.train.loop import TrainConfig
from pipeline.train.objective import Objective, StepContext, TowerConfig, trainable
from shards.training.source import Source
from shards.training.source_reader import read_part

_FROZEN = ConfigDict(frozen=True, extra="forbid")
TEXTS_FOR_WORDS = 100_000  # of each source, that a vocabulary is learned from


class ModelConfig(TowerConfig):
    """The network that training starts from: random, or what `start` holds.

    `start` is a pre-training folder to go on from; sizes and words are then its own. Without it,
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


class LossConfig(BaseModel):
    """How a step computes; the defaults are the paper's."""

    model_config = _FROZEN

    alpha: float = Field(0.4, ge=0, le=1, description="share of the soft targets in ITC")
    ramp_epochs: float = Field(2, ge=0, description="over which alpha rises from 0")
    momentum: float = Field(0.995, ge=0, le=1)
    queue: int = Field(57_600, ge=1)
    negatives: Rule = "masked"


class PretrainConfig(TrainConfig):
    """All of a pre-training that changes its result."""

    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()


class PretrainObjective(Objective):
    """ITC + ITM + LM of a pre-training network; `prompt` goes before each text for LM alone."""

    def __init__(
        self, network: PretrainNetwork, about: CheckpointContent, loss: LossConfig, prompt: str = ""
    ) -> None:
        super().__init__(network, about)
        self._loss = loss
        self._prompt = tuple(about.tokenizer.encode([prompt])[0])
        self._beside = [FeatureQueue(about.config.image_text_hidden_size, loss.queue)]

    def forward(self, batch: Batch, moment: StepContext) -> dict[str, Tensor]:
        """Compute the three losses and their sum."""
        words, loss = self.about.tokenizer, self._loss
        settings = StepSettings(
            self.first_token,
            words.dec_id,
            alpha=distillation_alpha(loss.alpha, moment.epoch, loss.ramp_epochs),
            momentum=moment.follow(loss.momentum),
            negatives=loss.negatives,
            prompt=self._prompt,
        )
        pairs = self.pairs(batch, moment.workers)
        found = self.network(pairs, self.queue, settings, moment.generator, workers=moment.workers)
        parts = {"itc": found.itc, "itm": found.itm, "lm": found.lm}
        return {"loss": found.total, **parts, "temperature": found.temperature}

    def export(self, folder: Path) -> Mapping[str, Path]:
        """Write the whole network with its queues, to go on from or to finetune."""
        return {"pretrain": self.write(folder / "model", self.network)}


def write_start(path: Path, config: PretrainConfig, sources: Sequence[Source]) -> None:
    """Write the random network that a training starts from, the same for the same seed."""
    words = _words(config.model.words, sources)
    whole = shape(config.model, words)
    checkpoint.create(
        path,
        "pretrain",
        whole,
        words,
        seed=config.seed,
        settings=ORIGINAL,
        position_range=config.model.position_range,
    )


def start_pretraining(path: Path, config: PretrainConfig) -> PretrainObjective:
    """Load what a training starts from; queues begin empty."""
    content = import_folder(path).content
    if content.role != "pretrain":
        raise CheckpointError(
            f"{path} holds a {content.role}; pre-training goes on from a pretrain folder"
        )
    network = trainable(PretrainNetwork, content, config.model)
    assert isinstance(network, PretrainNetwork)
    return PretrainObjective(network, content, config.loss)


def _words(given: str | int | None, sources: Sequence[Source]) -> WordPiece:
    if isinstance(given, int):
        return tokenizer.train(_texts(sources), given)
    return vocabulary(None if given is None else Path(given))


def _texts(sources: Sequence[Source]) -> Iterator[str]:
    """Read the first texts of each source."""
    for source in sources:
        yield from islice(_texts_of(source), TEXTS_FOR_WORDS)


def _texts_of(source: Source) -> Iterator[str]:
    for part in source.parts:
        with closing(read_part(part)) as samples:
            for sample in samples:
                yield from (text.text for text in sample.texts)


def shape(model: ModelConfig, words: WordPiece) -> BlipConfig:
    """Describe the network of a model section; ValueError names a setting that there is not."""
    config = blip_config(
        model.size,
        vocab_size=words.size,
        sep_id=words.sep_id,
        pad_id=words.pad_id,
        image_size=model.image_size,
    )
    for part, changes in ((config.vision_config, model.vision), (config.text_config, model.text)):
        for name, value in changes.items():
            if not hasattr(part, name):
                raise ValueError(f"model: {type(part).__name__} has no setting {name!r}")
            setattr(part, name, value)
    config.text_config.encoder_hidden_size = config.vision_config.hidden_size
    return config
