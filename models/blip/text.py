"""The text transformer: encoder, image-grounded encoder and decoder in one (BLIP §3.2).

Parameters carry the names of transformers' `BlipTextModel` and `BlipTextLMHeadModel`.

Training may recompute layers to save memory: an attribute of `TextEncoder`. Dropout comes from the
config and has no effect on evaluation.

Shapes: N texts, B images, T tokens, L tokens that a cache has room for, P image states, D width,
V width of the image states, H heads, C vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute
from transformers import BlipTextConfig

from models.blip.text_layers import KeyValue, Slots, TextEmbeddings, TextLayer

Images = Tensor | list[KeyValue] | None
"""States (B, P, V), or what `TextTransformer.project_images` made of them for each layer."""


@dataclass(slots=True)
class Cache:
    """What decoding keeps between steps, for each layer, so that no token is read twice.

    `self_kv` of the texts has room for all tokens from the start, and is written in place: a step
    allocates nothing. `cross_kv` of the images is made once, and has one row for all their texts.
    """

    self_kv: list[KeyValue]  # N rows, L places
    cross_kv: list[KeyValue]  # B rows, P places
    length: int = 0

    def expand(self, copies: int) -> None:
        """Continue every text in `copies` ways; copies of a text stand next to each other."""
        self.self_kv = [
            KeyValue(*(part.repeat_interleave(copies, dim=0) for part in layer))
            for layer in self.self_kv
        ]

    def reorder(self, rows: Tensor) -> None:
        """Let text i continue from text rows[i], of the same image."""
        self.self_kv = [
            KeyValue(*(part.index_select(0, rows) for part in layer)) for layer in self.self_kv
        ]


class TextEncoder(nn.Module):
    """The stack of layers.

    `recomputed`: so many of the last layers keep no activations in training, and are computed
    again on the way back.
    """

    def __init__(self, config: BlipTextConfig) -> None:
        super().__init__()
        self.recomputed = 0
        self.layer = nn.ModuleList(TextLayer(config) for _ in range(config.num_hidden_layers))

    def layers(self) -> Sequence[TextLayer]:
        """List the layers, first to last."""
        return cast(Sequence[TextLayer], self.layer)


class TextTransformer(nn.Module):
    """Embeddings and layers, read in both directions (`encode`) or left to right (`extend`)."""

    def __init__(self, config: BlipTextConfig) -> None:
        super().__init__()
        self.embeddings = TextEmbeddings(config)
        self.encoder = TextEncoder(config)

    def project_images(self, images: Tensor) -> list[KeyValue]:
        """Project image states (B, P, V) for every layer, for several readings to share."""
        return [layer.crossattention.self.key_value(images) for layer in self.encoder.layers()]

    def encode(
        self, ids: Tensor, mask: Tensor, images: Images = None, slots: Slots | None = None
    ) -> Tensor:
        """Encode ids (N, T) as (N, T, D), grounded in images where given.

        `mask` (N, T) is True on tokens and False on pads.
        """
        return self._read(ids, mask[:, None, None, :], images, slots)

    def decode(self, ids: Tensor, images: Images) -> Tensor:
        """Read whole ids (N, T) left to right, as `extend` does, but so that gradients flow.

        Pads need no mask where they stand at the end: nothing before them looks there.
        """
        steps = ids.shape[1]
        causal = torch.ones(steps, steps, dtype=torch.bool, device=ids.device).tril()
        return self._read(ids, causal, images, None)

    def _read(self, ids: Tensor, visible: Tensor, images: Images, slots: Slots | None) -> Tensor:
        hidden = self.embeddings(ids)
        layers = self.encoder.layers()
        kept = len(layers) - self.encoder.recomputed if torch.is_grad_enabled() else len(layers)
        for number, layer in enumerate(layers):
            image = images[number] if isinstance(images, list) else images
            arguments = (layer, hidden, visible, image, slots)
            if number < kept:
                hidden = _run(*arguments)
            else:
                hidden = recompute(_run, *arguments, use_reentrant=False)
        return hidden

    def open_cache(self, images: Tensor, room: int) -> Cache:
        """Project image states (B, P, V) once for all steps and make room for `room` tokens."""
        self_kv, cross_kv = [], []
        for image in self.project_images(images):
            # every step reads these: laid out head by head, a step on a CPU takes half the time
            cross_kv.append(KeyValue(image.key.contiguous(), image.value.contiguous()))
            batch, heads, _, width = image.key.shape
            empty = images.new_empty(2, batch, heads, room, width)
            self_kv.append(KeyValue(empty[0], empty[1]))
        return Cache(self_kv, cross_kv)

    def extend(self, ids: Tensor, cache: Cache) -> Tensor:
        """Read the next ids (N, T) left to right after what `cache` holds: (N, T, D)."""
        start, steps = cache.length, ids.shape[1]
        hidden = self.embeddings(ids, start)
        mask = None  # one token may look at all before it
        if steps > 1:
            mask = torch.ones(steps, start + steps, dtype=torch.bool, device=ids.device).tril(start)
        kept = zip(self.encoder.layers(), cache.self_kv, cache.cross_kv, strict=True)
        for layer, cached, image in kept:
            hidden = layer(layer.attention(hidden, mask, cached, start), image, None)
        cache.length = start + steps
        return hidden


def _run(
    layer: TextLayer,
    hidden: Tensor,
    visible: Tensor,
    image: Tensor | KeyValue | None,
    slots: Slots | None,
) -> Tensor:
    """Run a whole layer over (N, T, D)."""
    if isinstance(image, Tensor):
        image = layer.crossattention.self.key_value(image)
    return layer(layer.attention(hidden, visible), image, slots)


class WordTransform(nn.Module):
    """The dense layer before the vocabulary."""

    def __init__(self, config: BlipTextConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (..., D) to (..., D)."""
        return self.LayerNorm(F.gelu(self.dense(hidden)))


class WordPredictions(nn.Module):
    """States to words; the matrix is the embedding's own, only the bias is extra."""

    def __init__(self, config: BlipTextConfig) -> None:
        super().__init__()
        self.transform = WordTransform(config)
        self.bias = nn.Parameter(torch.empty(config.vocab_size))

    def forward(self, hidden: Tensor, words: Tensor) -> Tensor:
        """Map (..., D) to logits (..., C), given word embeddings (C, D)."""
        return F.linear(self.transform(hidden), words, self.bias)


class WordHead(nn.Module):
    """Holds the predictions under the name that checkpoints give them."""

    def __init__(self, config: BlipTextConfig) -> None:
        super().__init__()
        self.predictions = WordPredictions(config)


class TextDecoder(nn.Module):
    """The text transformer with a head that predicts the next word."""

    def __init__(self, config: BlipTextConfig) -> None:
        super().__init__()
        self.bert = TextTransformer(config)
        self.cls = WordHead(config)

    def extend(self, ids: Tensor, cache: Cache) -> Tensor:
        """Read the next ids (N, T) and predict what follows each: logits (N, T, C)."""
        return self.logits(self.bert.extend(ids, cache))

    def next_logits(self, ids: Tensor, cache: Cache) -> Tensor:
        """Read the next ids (N, T) and predict what follows the last: fp32 logits (N, C)."""
        return self.logits(self.bert.extend(ids, cache)[:, -1]).float()

    def logits(self, hidden: Tensor) -> Tensor:
        """Map states (..., D) to logits (..., C)."""
        return self.cls.predictions(hidden, self.bert.embeddings.word_embeddings.weight)
