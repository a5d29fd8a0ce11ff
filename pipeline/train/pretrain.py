"""Pre-train a network on clean and human-annotated pairs: ITC, ITM and LM together (BLIP §3.2)."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from transformers import BlipConfig

from models.blip import tokenizer
from models.blip.config import ORIGINAL, blip_config
from models.blip.tokenizer import WordPiece
from models.checkpoints import checkpoint
from models.checkpoints.conversion import import_folder, vocabulary
from models.checkpoints.locate import CheckpointError
from pipeline.train.objectives.pretrain import PretrainObjective
from pipeline.train.pretrain_config import ModelConfig, PretrainConfig
from shards.training.source import Source
from shards.training.source_reader import read_part

TEXTS_FOR_WORDS = 100_000  # of each source, that a vocabulary is learned from


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
    return PretrainObjective(content, config.model, config.loss)


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
