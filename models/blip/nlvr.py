"""The network that reasons about a pair of images (BLIP §5.4, NLVR2).

The text encoder looks at both images in every layer, through two cross-attentions. What they bring
is averaged in the lower layers, and joined by a linear layer in the upper ones.

Shapes: N statements, each with a left and a right image; T tokens, P image states, V their width,
D width of the text.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BlipConfig, BlipTextConfig

from models.blip.networks import linear_fp32
from models.blip.sdpa import attend
from models.blip.text_layers import (
    AddNorm,
    Intermediate,
    Projections,
    SelfAttention,
    TextEmbeddings,
)
from models.blip.vision import VisionTower

MERGE_FROM = 6  # the first layer that joins the two images by a linear layer


class TwinOutput(nn.Module):
    """Bring what two images say together, add the residual and normalise."""

    def __init__(self, config: BlipTextConfig, *, merge: bool) -> None:
        super().__init__()
        width = config.hidden_size
        self.dense0 = nn.Linear(width, width)
        self.dense1 = nn.Linear(width, width)
        self.merge_layer = nn.Linear(2 * width, width) if merge else None
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, left: Tensor, right: Tensor, residual: Tensor) -> Tensor:
        """Combine three of (N, T, D) into (N, T, D)."""
        left, right = self.dense0(left), self.dense1(right)
        if self.merge_layer is None:
            merged = (left + right) / 2
        else:  # linear alone: the paper's figure shows no activation after it
            merged = self.merge_layer(torch.cat([left, right], dim=-1))
        return self.LayerNorm(self.dropout(merged) + residual)


class TwinAttention(nn.Module):
    """Attention of a statement to its two images."""

    def __init__(self, config: BlipTextConfig, *, merge: bool) -> None:
        super().__init__()
        self.self0 = Projections(config, config.encoder_hidden_size)
        self.self1 = Projections(config, config.encoder_hidden_size)
        self.output = TwinOutput(config, merge=merge)

    def forward(self, hidden: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Map (N, T, D) to (N, T, D), given the states (N, P, V) of both images."""
        return self.output(
            _cross_attend(self.self0, hidden, left),
            _cross_attend(self.self1, hidden, right),
            hidden,
        )


class TwinLayer(nn.Module):
    """One post-norm layer."""

    def __init__(self, config: BlipTextConfig, *, merge: bool) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.crossattention = TwinAttention(config, merge=merge)
        self.intermediate = Intermediate(config)
        self.output = AddNorm(config, config.intermediate_size)

    def forward(self, hidden: Tensor, mask: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Map (N, T, D) to (N, T, D)."""
        hidden = self.crossattention(self.attention(hidden, mask), left, right)
        return self.output(self.intermediate(hidden), hidden)


class TwinStack(nn.Module):
    """The stack of layers."""

    def __init__(self, config: BlipTextConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            TwinLayer(config, merge=number >= MERGE_FROM)
            for number in range(config.num_hidden_layers)
        )

    def layers(self) -> Sequence[TwinLayer]:
        """List the layers, first to last."""
        return cast(Sequence[TwinLayer], self.layer)


class TwinTransformer(nn.Module):
    """The text encoder with two images in sight."""

    def __init__(self, config: BlipTextConfig) -> None:
        super().__init__()
        self.embeddings = TextEmbeddings(config)
        self.encoder = TwinStack(config)

    def encode(self, ids: Tensor, mask: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Encode ids (N, T), of which `mask` is True on tokens, with image states (N, P, V)."""
        hidden = self.embeddings(ids)
        visible = mask[:, None, None, :]
        for layer in self.encoder.layers():
            hidden = layer(hidden, visible, left, right)
        return hidden


class NlvrNetwork(nn.Module):
    """Vision tower, twin text encoder and a head of two layers; the original's own layout."""

    def __init__(self, config: BlipConfig) -> None:
        super().__init__()
        width = config.text_config.hidden_size
        self.vision_model = VisionTower(config.vision_config)
        self.text_encoder = TwinTransformer(config.text_config)
        self.cls_head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, ids: Tensor, mask: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Score statements (N, T), which begin with [ENC]: fp32 logits (N, 2), false and true."""
        hidden = self.text_encoder.encode(ids, mask, left, right)[:, 0]
        first, _, last = cast(tuple[nn.Linear, nn.ReLU, nn.Linear], tuple(self.cls_head))
        return linear_fp32(last, F.relu(linear_fp32(first, hidden)))


def twin(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Start both cross-attentions of a text encoder from the one of a pre-trained encoder.

    `merge_layer` and `cls_head` have no counterpart: what trains them must set them.
    """
    twins: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        copies = [name]
        if ".crossattention.self." in name:
            part = ".crossattention.self"
            copies = [name.replace(f"{part}.", f"{part}{side}.") for side in (0, 1)]
        elif ".crossattention.output.dense." in name:
            copies = [name.replace(".dense.", f".dense{side}.") for side in (0, 1)]
        twins.update(dict.fromkeys(copies, tensor))
    return twins


def _cross_attend(layer: Projections, hidden: Tensor, states: Tensor) -> Tensor:
    query = layer.split(layer.query(hidden))
    key, value = layer.key_value(states)
    mixed = attend(query, key, value, dropout=layer.dropout)
    return mixed.transpose(1, 2).flatten(2)
