"""What a training minimises: a network, the loss of a batch, and what becomes of it at the end."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from transformers import BlipConfig

from models.blip.preprocess import Preprocess
from models.blip.text import TextEncoder
from models.blip.tokenizer import normalise
from models.blip.vision import VisionEncoder
from models.checkpoints.folder import CheckpointContent
from models.training.compiled import bucketed, compile_towers
from models.training.contrast import ContrastNetwork, Pairs
from models.training.momentum import FeatureQueue
from models.training.workers import Workers
from pipeline.train.config import TowerConfig
from pipeline.train.dataloader import Batch
from pipeline.train.state import write_checkpoint

_Network = TypeVar("_Network", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class StepContext:
    """Where a training is: `epoch` says how many are done, `generator` is alike on all workers.

    `part` is which part of a batch this is, where one step is computed in several.
    """

    epoch: float
    generator: torch.Generator
    workers: Workers
    part: int = 0

    def follow(self, momentum: float) -> float:
        """Return the momentum of the copies: they move in a step's first part alone."""
        return momentum if self.part == 0 else 1.0


class Objective(nn.Module):
    """A network in training. `queue` is not part of it: DDP must not broadcast it at each step.

    `about` says what the network is (sizes, tokenizer, preprocessing), without its tensors.
    """

    clean: Callable[[str], str] = staticmethod(normalise)  # what texts go through first

    def __init__(self, network: nn.Module, about: CheckpointContent) -> None:
        super().__init__()
        self.network = network
        self.about = replace(about, tensors={}, training={})
        self._beside: list[FeatureQueue] = []
        self._prompt: tuple[int, ...] = ()  # before each text that LM learns
        self._compiled = False
        self._statistics = _statistics(about.preprocess, torch.device("cpu"))

    @property
    def queue(self) -> FeatureQueue | None:
        """What the loss keeps between steps beside the network, if anything."""
        return self._beside[0] if self._beside else None

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._statistics[0].device

    @property
    def first_token(self) -> int:
        """The id before a text that ITM reads: the one that the exported filter will put there."""
        return self.about.settings.first_id(self.about.tokenizer)

    def forward(self, batch: Batch, moment: StepContext) -> dict[str, Tensor]:
        """Compute what is minimised, `loss`, and the numbers that it is made of."""
        raise NotImplementedError

    def export(self, folder: Path) -> Mapping[str, Path]:
        """Write the trained checkpoints, each a new folder in `folder`, by role."""
        return {self.about.role: self.write(folder / "model", self.network)}

    def compile_towers(self, backend: str = "inductor") -> None:
        """Compute by torch.compile from the first step on."""
        compile_towers(self.network, backend)
        self._compiled = True

    def to_device(self, device: torch.device) -> None:
        """Move network and queue."""
        self.to(device)
        for part in self._beside:
            part.to(device)
        self._statistics = _statistics(self.about.preprocess, device)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Normalise uint8 pictures (B, 3, S, S) on the network's device, as `Preprocess` does.

        Mean and deviation lie there already: a step that copied them would wait for the device.
        """
        mean, std = self._statistics
        return pixels.to(mean.device, non_blocking=True).float().div_(255).sub_(mean).div_(std)

    def pairs(self, batch: Batch, workers: Workers) -> Pairs:
        """Move a batch to the network's device, padded as long as the other workers' texts.

        Nothing is waited for where the batch is pinned.
        """
        device = self.device
        length = workers.longest(batch.ids.shape[1])
        if self._compiled:
            positions = self.about.config.text_config.max_position_embeddings
            length = bucketed(length, positions - len(self._prompt))
        padded = batch.padded(length, self.about.tokenizer.pad_id)
        ids, mask, learned, image_ids, hashes = (
            rows.to(device, non_blocking=True)
            for rows in (
                padded.ids,
                padded.mask,
                padded.learned,
                batch.image_ids,
                batch.text_hashes,
            )
        )
        return Pairs(self.normalise(batch.pixels), ids, mask, image_ids, hashes, learned)

    def write(self, path: Path, network: nn.Module) -> Path:
        """Write a network, trained here, as a new folder; one that is there was written before."""
        if not path.exists():
            # a queue goes on in another pre-training; of a filter nobody would read it
            queue = self.queue if self.about.role == "pretrain" else None
            kept = {} if queue is None else queue.state_dict()
            content = replace(self.about, tensors=network.state_dict(), training=kept)
            write_checkpoint(path, content)
        return path


def _statistics(preprocess: Preprocess, device: torch.device) -> tuple[Tensor, Tensor]:
    """Put mean and deviation of the colours on a device."""
    mean, std = (
        torch.tensor(values, device=device).view(3, 1, 1)
        for values in (preprocess.mean, preprocess.std)
    )
    return mean, std


def trainable(
    kind: Callable[[BlipConfig], _Network], content: CheckpointContent, towers: TowerConfig
) -> _Network:
    """Make a network out of a checkpoint's tensors, in fp32, and let gradients reach it.

    Momentum copies that the checkpoint lacks begin as copies of their modules.
    """
    config = copy.deepcopy(content.config)
    config.text_config.hidden_dropout_prob = towers.dropout
    config.text_config.attention_probs_dropout_prob = towers.dropout
    network = kind(config)
    tensors = {name: tensor.float() for name, tensor in content.tensors.items()}
    lacking, _ = network.load_state_dict(tensors, strict=False)
    if isinstance(network, ContrastNetwork) and lacking:
        network.start()
    for module in network.modules():
        if isinstance(module, VisionEncoder):
            module.recomputed, module.drop_path = towers.recompute, towers.drop_path
        if isinstance(module, TextEncoder):
            text = towers.recompute_text
            module.recomputed = towers.recompute if text is None else text
    if towers.freeze_vision:
        network.get_submodule("vision_model").requires_grad_(False)
    if isinstance(network, ContrastNetwork):
        for _, copied in network.copies():
            copied.requires_grad_(False)
    return network
