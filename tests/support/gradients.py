"""The gradients of a network, beside those of the original."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from models.checkpoints.original import rename


def check_gradients(network: nn.Module, facts: Mapping[str, Any]) -> None:
    """Compare the norm of each gradient, and of all together, with what a reference says."""
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    norms = {name: gradient.norm() for name, gradient in gradients.items()}
    for name, norm in facts["grad_norms"].items():
        if not name.endswith("key.bias"):  # the true gradient is 0
            assert norms[rename(name)].item() == pytest.approx(norm["fp32"], rel=1e-3), name
    total = torch.stack(list(norms.values())).norm()
    assert total.item() == pytest.approx(facts["grad_norm_total"]["fp32"], rel=1e-3)
