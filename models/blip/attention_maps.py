"""Where words look: cross-attention of a text to its image, and Grad-CAM of a score through it.

Attention alone says where a word looked; Grad-CAM (arXiv 1610.02391) keeps what raised a score.
With heads for its channels, a head's weight is the positive part of the score's gradient, pooled
over the image (as in Grad-CAM++, arXiv 1710.11063): the map is where the heads look that raised the
score. BLIP's authors multiply place by place instead; where a match is sure, gradients are small,
and that map follows their noise (docs/use.md has figures). Layers are run here with plain products,
since fused kernels keep no probabilities.

Shapes: N texts, T tokens, P image states (the class token, then rows * columns patches), V their
width, H heads, C vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.blip.networks import CaptionNetwork, MatchNetwork
from models.blip.text import TextTransformer
from models.blip.text_layers import CrossAttention, Projections


@dataclass(frozen=True, slots=True)
class Trace:
    """Last states (N, T, D), and each layer's cross-attention probabilities (N, H, T, P)."""

    hidden: Tensor
    probabilities: list[Tensor]


@dataclass(frozen=True, slots=True)
class Maps:
    """Probabilities of each layer, and a score's gradients with respect to them: (N, H, T, P).

    `scores`: match logits (N, 2), or the logits (N, T) of a caption's tokens.
    """

    scores: Tensor
    probabilities: list[Tensor]
    gradients: list[Tensor]


def trace(transformer: TextTransformer, ids: Tensor, visible: Tensor, states: Tensor) -> Trace:
    """Read ids (N, T), each text with its image's states (N, P, V), and keep the probabilities.

    `visible` is True where a place (second last axis) may look in its text.
    """
    hidden, probabilities = transformer.embeddings(ids), []
    for layer in transformer.encoder.layers():
        hidden, probs = _cross_attend(
            layer.crossattention, layer.attention(hidden, visible), states
        )
        hidden = layer.output(layer.intermediate(hidden), hidden)
        probabilities.append(probs)
    return Trace(hidden, probabilities)


def match_maps(network: MatchNetwork, ids: Tensor, mask: Tensor, images: Tensor) -> Maps:
    """Trace the match of texts (N, T) with their image states (N, P, V), and its gradients."""
    with torch.inference_mode(False), torch.enable_grad():
        traced = trace(network.text_encoder, ids, mask[:, None, None, :], images.clone())
        logits = network.itm_head(traced.hidden[:, 0])
        gradients = torch.autograd.grad(logits[:, 1].sum(), traced.probabilities)
    return Maps(logits.detach(), _detach(traced.probabilities), list(gradients))


def caption_maps(network: CaptionNetwork, ids: Tensor, images: Tensor) -> Maps:
    """Trace captions (N, T + 1), which begin with [DEC], over their image states (N, P, V).

    Row t of a map is the place that predicts token t + 1, and its gradient that token's logit's.
    """
    steps, following = ids.shape[1] - 1, ids[:, 1:]
    causal = torch.ones(steps, steps, dtype=torch.bool, device=ids.device).tril()
    with torch.inference_mode(False), torch.enable_grad():
        traced = trace(network.text_decoder.bert, ids[:, :-1], causal, images.clone())
        logits = network.text_decoder.logits(traced.hidden)
        scores = logits.gather(-1, following[:, :, None]).squeeze(-1)  # (N, T)
        gradients = [torch.zeros_like(layer) for layer in traced.probabilities]
        for step in range(steps):
            parts = torch.autograd.grad(
                scores[:, step].sum(), traced.probabilities, retain_graph=True
            )
            for whole, part in zip(gradients, parts, strict=True):
                whole[:, :, step] = part[:, :, step]
    return Maps(scores.detach(), _detach(traced.probabilities), gradients)


def grad_cam(
    probabilities: Tensor, gradients: Tensor, mask: Tensor, grid: tuple[int, int]
) -> Tensor:
    """Weigh each head of one layer by how much it raises the score: (N, T, rows, columns).

    The mean over heads; the class token's column is left out, and pads, False in `mask` (N, T),
    have empty maps.
    """
    heads = gradients[..., 1:].clamp(min=0).mean(-1, keepdim=True)  # (N, H, T, 1)
    weighted = probabilities[..., 1:] * heads * mask[:, None, :, None]
    return weighted.mean(1).unflatten(-1, grid)


def original_cam(
    probabilities: Tensor, gradients: Tensor, mask: Tensor, grid: tuple[int, int]
) -> Tensor:
    """Weigh one layer's probabilities place by place, as ALBEF and LAVIS do; else as `grad_cam`."""
    weighted = probabilities[..., 1:] * gradients[..., 1:].clamp(min=0) * mask[:, None, :, None]
    return weighted.mean(1).unflatten(-1, grid)


def attention_map(probabilities: Tensor, mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average one layer's probabilities over the heads: (N, T, rows, columns); pads are empty."""
    return (probabilities[..., 1:] * mask[:, None, :, None]).mean(1).unflatten(-1, grid)


def over_pieces(maps: Tensor, pieces: Sequence[int]) -> Tensor:
    """Average maps (T, rows, columns) over the pieces of each word: `pieces` of them in turn."""
    return torch.stack([part.mean(0) for part in maps.split(list(pieces))])


def _cross_attend(
    attention: CrossAttention, hidden: Tensor, states: Tensor
) -> tuple[Tensor, Tensor]:
    layer: Projections = attention.self
    query = layer.split(layer.query(hidden))  # (N, H, T, D/H)
    key, value = layer.key_value(states)
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    precise = torch.promote_types(scores.dtype, torch.float32)
    probs = scores.softmax(-1, dtype=precise)  # (N, H, T, P)
    if torch.is_grad_enabled() and not probs.requires_grad:
        probs.requires_grad_()  # frozen weights: the gradient begins here
    mixed = (probs.to(value.dtype) @ value).transpose(1, 2).flatten(2)
    return attention.output(mixed, hidden), probs


def _detach(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach() for tensor in tensors]
