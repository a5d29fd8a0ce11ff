"""The vision transformer: pre-norm blocks and a final norm (BLIP §3.1).

Parameters carry the names of transformers' `BlipVisionModel`. Training may drop whole branches
(stochastic depth, Huang et al. 2016) and recompute layers to save memory: attributes of
`VisionEncoder`, without effect on evaluation.

Shapes: B images, S side in pixels, P patches plus one for the class token, D width, H heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute
from transformers import BlipVisionConfig

from models.blip.products.packed import linear_gelu


class PatchEmbeddings(nn.Module):
    """Cut an image into patches, put a class token before them and add positions."""

    def __init__(self, config: BlipVisionConfig) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        places = (config.image_size // patch) ** 2 + 1
        self.class_embedding = nn.Parameter(torch.empty(1, 1, width))
        self.position_embedding = nn.Parameter(torch.empty(1, places, width))
        self.patch_embedding = nn.Conv2d(3, width, kernel_size=patch, stride=patch)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed normalised pixels (B, 3, S, S) as (B, P, D)."""
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)  # (B, P-1, D)
        first = self.class_embedding.expand(len(pixels), -1, -1)  # (B, 1, D)
        return torch.cat([first, patches], dim=1) + self.position_embedding


class VisionAttention(nn.Module):
    """Self-attention among the patches, with one projection for query, key and value."""

    def __init__(self, config: BlipVisionConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.dropout = float(config.attention_dropout)
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.projection = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, P, D) to (B, P, D)."""
        qkv = self.qkv(hidden).unflatten(-1, (3, self.heads, -1))  # (B, P, 3, H, D/H)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, P, D/H)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.projection(mixed.transpose(1, 2).flatten(2))


class VisionMlp(nn.Module):
    """The feed-forward half of a block."""

    def __init__(self, config: BlipVisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, P, D) to (B, P, D)."""
        return self.fc2(linear_gelu(self.fc1, hidden))


class VisionLayer(nn.Module):
    """One pre-norm block."""

    def __init__(self, config: BlipVisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = VisionAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = VisionMlp(config)

    def forward(self, hidden: Tensor, drop_path: float = 0.0) -> Tensor:
        """Map (B, P, D) to (B, P, D); in training each branch is skipped with rate `drop_path`."""
        rate = drop_path if self.training else 0.0
        hidden = hidden + _skip(self.self_attn(self.layer_norm1(hidden)), rate)
        return hidden + _skip(self.mlp(self.layer_norm2(hidden)), rate)


class VisionEncoder(nn.Module):
    """The stack of blocks.

    `drop_path`: the rate at which training skips a branch of the last block; it rises linearly
    from 0 at the first (the original trains `large` with 0.1). `recomputed`: so many of the last
    blocks keep no activations, and are computed again on the way back.
    """

    def __init__(self, config: BlipVisionConfig) -> None:
        super().__init__()
        self.drop_path = 0.0
        self.recomputed = 0
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, P, D) to (B, P, D)."""
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            rate = self.drop_path * number / max(last, 1)
            if torch.is_grad_enabled() and number > last - self.recomputed:
                hidden = recompute(layer, hidden, rate, use_reentrant=False)
            else:
                hidden = layer(hidden, rate)
        return hidden


class VisionTower(nn.Module):
    """Images to states: one for the whole image (the first), one for each patch."""

    def __init__(self, config: BlipVisionConfig) -> None:
        super().__init__()
        self.embeddings = PatchEmbeddings(config)
        self.encoder = VisionEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map normalised pixels (B, 3, S, S) to image states (B, P, D)."""
        return self.post_layernorm(self.encoder(self.embeddings(pixels)))


def _skip(branch: Tensor, rate: float) -> Tensor:
    """Drop the branch (B, P, D) of some images, and scale the others so that the mean stays."""
    if rate == 0:
        return branch
    kept = torch.rand(len(branch), 1, 1, device=branch.device) >= rate
    return branch * kept / (1 - rate)
