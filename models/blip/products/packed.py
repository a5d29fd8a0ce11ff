"""Linear layers for a CPU, with weights laid out in the order in which oneDNN reads them.

torch's own products lay a matrix out anew each time, or read it across: of the few rows of a
decoding step that is most of their time. oneDNN's take it packed: 1.2 times as fast for the vision
tower, and 2 to 5 times for a step, where it was measured (docs/benchmarks). These are the products
that torch's own compiler uses; where a build of torch has none, layers stay as they are.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST = 256 * 256  # weights: the product of a smaller layer costs less than the call
_ROWS = 64  # that the layout is chosen for; more or fewer are as fast, one alone is not


class PackedLinear(nn.Module):
    """A linear layer for reading alone: without parameters, and without gradients."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """Pack a weight (E, D) and keep the bias (E,)."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._bias = bias.detach()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)

    def forward(self, states: Tensor, then: str = "none") -> Tensor:
        """Map (..., D) to (..., E); `then` gelu: through it. RuntimeError for a gradient."""
        if torch.is_grad_enabled() and states.requires_grad:  # torch would give none, and go on
            raise RuntimeError("packed layers pass no gradient on; load the checkpoint unpacked")
        product = torch.ops.mkldnn._linear_pointwise
        made: Tensor = product(states, self._packed, self._bias, then, [], "none")
        return made

    def _save_to_state_dict(self, *_: object) -> None:
        raise RuntimeError("packed layers hold nothing to save; load the checkpoint unpacked")


def linear_gelu(linear: nn.Module, states: Tensor) -> Tensor:
    """Map states (..., D) through a layer and GELU to (..., E), at once where it is packed."""
    if isinstance(linear, PackedLinear):
        return linear(states, "gelu")
    return F.gelu(linear(states))


def pack_linears(network: nn.Module) -> None:
    """Replace the layers in a network that are worth it, if this torch can compute them packed.

    The parameters lose their names: for reading alone, not for saving or training.
    """
    for part in network.modules():
        for name, layer in part.named_children():
            if type(layer) is nn.Linear and layer.bias is not None and can_pack(layer.weight):
                setattr(part, name, PackedLinear(layer.weight, layer.bias))


def copy_out(tensors: Iterable[Tensor]) -> None:
    """Copy tensors in place, out of the file that their network was read from.

    The pages of a file stay in a process's memory as long as one bias of it is in use.
    """
    for tensor in tensors:
        tensor.data = tensor.data.clone()


def can_pack(weight: Tensor) -> bool:
    """Check that a weight is worth it, and that this torch can compute with it, packed."""
    if weight.device.type != "cpu" or weight.numel() < LEAST:
        return False
    onednn = torch.backends.mkldnn  # its switch is the user's, for where oneDNN is at fault
    if not (onednn.is_available() and onednn.enabled):
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32
