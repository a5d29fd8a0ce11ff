"""The networks of the two roles: the caption network and the match network (BLIP §3.2).

Shapes: B images, N texts, T tokens, P image states, V their width, E projection width.
"""

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BlipConfig

from models.config import Role
from models.text import Slots, TextDecoder, TextTransformer
from models.vision import VisionTower


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

    def match_logits(self, ids: Tensor, mask: Tensor, images: Tensor, slots: Slots) -> Tensor:
        """Score texts (N, T) against their images (B, P, V): fp32 (N, 2), no match and match."""
        hidden = self.text_encoder.encode(ids, mask, images, slots)
        return _in_fp32(self.itm_head, hidden[:, 0])

    def image_features(self, images: Tensor) -> Tensor:
        """Project image states (B, P, V) to unit vectors in fp32 (B, E)."""
        return F.normalize(_in_fp32(self.vision_proj, images[:, 0]), dim=-1)

    def text_features(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Project texts (N, T), read without an image, to unit vectors in fp32 (N, E)."""
        return F.normalize(_in_fp32(self.text_proj, self.text_encoder.encode(ids, mask)[:, 0]))


def _in_fp32(head: nn.Linear, states: Tensor) -> Tensor:
    """Apply a head in fp32: three digits of bf16 are too few for a score."""
    return F.linear(states.float(), head.weight.float(), head.bias.float())


def build(role: Role, config: BlipConfig) -> CaptionNetwork | MatchNetwork:
    """Make the network of a role, its weights not yet set."""
    return CaptionNetwork(config) if role == "captioner" else MatchNetwork(config)
