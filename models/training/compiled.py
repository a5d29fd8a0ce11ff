"""Both towers by torch.compile: kernels for what a GPU otherwise does piece by piece.

What cannot be compiled runs as it is, with a warning of torch's. The texts of a batch are padded to
few lengths: each length is compiled anew, and takes half a minute.
"""

from contextlib import suppress

import torch
from torch import nn

from models.blip.text_layers import SelfAttention, TextLayer
from models.blip.vision import VisionTower

LENGTH_STEP = 8  # tokens
_VARIANTS = 64  # of one piece of code: lengths, with an image or without, with gradients or without


def compile_towers(network: nn.Module, backend: str = "inductor") -> None:
    """Let vision towers and the layers of text transformers be compiled where they are called.

    Names and state dict stay. Layers of one transformer are alike, and are compiled once.
    """
    # by name: torch has renamed the limit, and may do so again
    for limit in ("recompile_limit", "cache_size_limit"):
        with suppress(AttributeError):
            setattr(torch._dynamo.config, limit, _VARIANTS)
    torch._dynamo.config.suppress_errors = True
    for module in network.modules():
        if isinstance(module, VisionTower | TextLayer | SelfAttention):
            module.compile(backend=backend, dynamic=False)


def bucketed(length: int, most: int) -> int:
    """Round a length in tokens up, as far as the network has positions."""
    return max(length, min(-(-length // LENGTH_STEP) * LENGTH_STEP, most))
