"""The networks over one image and a text: caption, match, features and VQA (BLIP §3.2, §5.3).

Shapes: B images, N texts, T tokens, P image states, V their width, E projection width.
"""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BlipConfig

from models.blip.sdpa import attend
from models.blip.text import TextDecoder, TextTransformer
from models.blip.text_layers import CrossAttention, Projections, Slots, TextGroup
from models.blip.vision import VisionTower


class CaptionNetwork(nn.Module):
    """Vision tower and image-grounded decoder; the layout of `BlipForConditionalGeneration`."""

    def __init__(self, config: BlipConfig) -> None:
        super().__init__()
        self.vision_model = VisionTower(config.vision_config)
        self.text_decoder = TextDecoder(config.text_config)

    def forward(self, pixels: Tensor, ids: Tensor) -> Tensor:
        """Predict the word after each of ids (B, T), given pixels (B, 3, S, S): (B, T, C)."""
        images = self.vision_model(pixels)
        cache = self.text_decoder.bert.open_cache(images, ids.shape[1])
        return self.text_decoder.extend(ids, cache)


class MatchNetwork(nn.Module):
    """Vision tower, text encoder and heads; the layout of `BlipForImageTextRetrieval`."""

    def __init__(self, config: BlipConfig) -> None:
        super().__init__()
        shared = config.image_text_hidden_size
        self.vision_model = VisionTower(config.vision_config)
        self.text_encoder = TextTransformer(config.text_config)
        self.vision_proj = nn.Linear(config.vision_config.hidden_size, shared)
        self.text_proj = nn.Linear(config.text_config.hidden_size, shared)
        self.itm_head = nn.Linear(config.text_config.hidden_size, 2)

    def match_logits(
        self, ids: Tensor, mask: Tensor, images: Tensor, slots: Slots | None
    ) -> Tensor:
        """Score texts (N, T) against their images (B, P, V): fp32 (N, 2), no match and match."""
        hidden = self.text_encoder.encode(ids, mask, images, slots)
        return linear_fp32(self.itm_head, hidden[:, 0])

    def match_groups(self, groups: Sequence[TextGroup], images: Tensor) -> Tensor:
        """Score groups of texts against their images (B, P, V): fp32 (N, 2), group after group."""
        hidden = self.text_encoder.encode_groups(groups, images)
        return linear_fp32(self.itm_head, torch.cat([states[:, 0] for states in hidden]))

    def image_features(self, images: Tensor) -> Tensor:
        """Project image states (B, P, V) to unit vectors in fp32 (B, E)."""
        return F.normalize(self.project_images(images), dim=-1)

    def project_images(self, images: Tensor) -> Tensor:
        """Project image states (B, P, V) in fp32 (B, E), of any length."""
        return linear_fp32(self.vision_proj, images[:, 0])

    def text_features(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Project texts (N, T), read without an image, to unit vectors in fp32 (N, E)."""
        return self.unit_text(self.text_encoder.encode(ids, mask))

    def unit_text(self, states: Tensor) -> Tensor:
        """Project states (N, T, D) of texts, read without an image, to unit vectors (N, E)."""
        return F.normalize(linear_fp32(self.text_proj, states[:, 0]))


class FeatureNetwork(nn.Module):
    """Vision tower and text encoder without a head: the original's feature extractor."""

    def __init__(self, config: BlipConfig) -> None:
        super().__init__()
        self.vision_model = VisionTower(config.vision_config)
        self.text_encoder = TextTransformer(config.text_config)

    def forward(self, ids: Tensor, mask: Tensor, images: Tensor | None = None) -> Tensor:
        """Read texts (N, T), grounded in image states (B, P, V) where given: (N, T, D)."""
        return self.text_encoder.encode(ids, mask, images)


class Answering:
    """Reading questions and writing answers, of a network with a text encoder and a decoder.

    Shapes: Q questions, U their tokens, D the text width; A answers, of T tokens.
    """

    text_encoder: TextTransformer
    text_decoder: TextDecoder

    def questions(self, ids: Tensor, mask: Tensor, images: Tensor) -> Tensor:
        """Read questions (Q, U), which begin with [ENC], with image states (Q, P, V): (Q, U, D)."""
        return self.text_encoder.encode(ids, mask, images)

    def answer_logits(self, ids: Tensor, questions: Tensor, mask: Tensor) -> Tensor:
        """Predict the word after each of ids (A, T): (A, T, C).

        `questions` (Q, U, D) and their `mask` (Q, U): A is a multiple of Q, the answers to a
        question stand next to each other.
        """
        steps = ids.shape[1]
        causal = torch.ones(steps, steps, dtype=torch.bool, device=ids.device).tril()
        hidden = self.text_decoder.bert.embeddings(ids)
        for layer in self.text_decoder.bert.encoder.layers():
            hidden = layer.attention(hidden, causal)
            hidden = _cross_attend(layer.crossattention, hidden, questions, mask)
            hidden = layer.output(layer.intermediate(hidden), hidden)
        return self.text_decoder.logits(hidden)


class VqaNetwork(Answering, nn.Module):
    """Vision tower, question encoder and answer decoder; the layout of `BlipForQuestionAnswering`.

    The decoder looks at the question's states, not at the image (BLIP §5.3). It shares nothing
    with the encoder.
    """

    def __init__(self, config: BlipConfig) -> None:
        super().__init__()
        # what this decoder looks at is as wide as a text, not as an image
        answers = copy.deepcopy(config.text_config)
        answers.encoder_hidden_size = config.text_config.hidden_size
        self.vision_model = VisionTower(config.vision_config)
        self.text_encoder = TextTransformer(config.text_config)
        self.text_decoder = TextDecoder(answers)


def _cross_attend(
    attention: CrossAttention, hidden: Tensor, states: Tensor, mask: Tensor
) -> Tensor:
    """Let texts (A, T, D) look at those of the states (Q, U, D) that the mask (Q, U) shows."""
    layer: Projections = attention.self
    # the answers to a question stand in one long query: its keys are projected once, not A/Q times
    query = layer.query(hidden).reshape(len(states), -1, hidden.shape[-1])  # (Q, A/Q * T, D)
    key, value = layer.key_value(states)
    mixed = attend(layer.split(query), key, value, mask[:, None, None, :], layer.dropout)
    return attention.output(mixed.transpose(1, 2).reshape(hidden.shape), hidden)


def linear_fp32(head: nn.Linear, states: Tensor) -> Tensor:
    """Apply a head in fp32: three digits of bf16 are too few for a score."""
    return F.linear(states.float(), head.weight.float(), head.bias.float())
