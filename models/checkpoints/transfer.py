"""Start a network that answers questions, or reasons about two pictures, from a pre-trained one."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from models.blip.nlvr import twin
from models.checkpoints.checkpoint import reset_weights
from models.checkpoints.folder import CheckpointContent
from models.checkpoints.locate import CheckpointError
from models.checkpoints.role_networks import build, ties


def transfer(
    whole: CheckpointContent, role: Literal["vqa", "nlvr"], seed: int
) -> CheckpointContent:
    """Take what a pre-training checkpoint has of a role; the rest is random, the same for a seed.

    The rest is NLVR2's head and its merge layers, and, where pictures and texts differ in width,
    what lets VQA's decoder look at a question instead of a picture. Nothing is shared any more.
    """
    if whole.role != "pretrain":
        raise CheckpointError(
            f"a {role} network starts from a pretrain folder, or a {role} one; found {whole.role}"
        )
    network = build(role, whole.config)
    reset_weights(network, whole.config, torch.Generator().manual_seed(seed))
    learned = _named(whole)
    if role == "nlvr":
        learned = twin(learned)
    tensors = {
        name: learned[name].clone() if _fits(learned.get(name), tensor) else tensor.detach()
        for name, tensor in network.state_dict().items()
    }
    return replace(whole, role=role, tensors=tensors, training={})


def _named(whole: CheckpointContent) -> dict[str, Tensor]:
    """Map each name of a pre-trained network, second ones too, to its tensor."""
    with torch.device("meta"):
        second = ties(build("pretrain", whole.config))
    return {**whole.tensors, **{name: whole.tensors[first] for name, first in second.items()}}


def _fits(found: Tensor | None, wanted: Tensor) -> bool:
    return found is not None and found.shape == wanted.shape
