"""The text transformer: encoder, image-grounded encoder and decoder in one (BLIP §3.2).

Parameters carry the names of transformers' `BlipTextModel` and `BlipTextLMHeadModel`.

Training may recompute layers to save memory: an attribute of `TextEncoder`. Dropout comes from the
config and has no effect on evaluation.

Shapes: N texts, B images, T tokens, L tokens that a cache has room for, P image states, D width,
V width of the image states, H heads, C vocabulary.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute
from transformers import BlipTextConfig

from models.blip.products.packed import PackedLinear, can_pack, linear_gelu, pack_linears
from models.blip.products.side_by_side import lay_together, project
from models.blip.text_layers import (
    CachedText,
    KeyValue,
    Projections,
    Slots,
    TextEmbeddings,
    TextGroup,
    TextLayer,
)

Images = Tensor | list[KeyValue] | None
"""States (B, P, V), or what `TextTransformer.project_images` made of them for each layer."""


class Cache:
    """What decoding keeps between steps, so that no token is read twice.

    All of it has its full size from the start and is written in place, at places that the device
    counts: a step needs nothing of the host, and finds everything where the last one did. Texts
    have L places, those behind `position` not written yet; images, P places, are projected once,
    and have one row for all their texts.
    """

    def __init__(self, texts: Tensor, images: Tensor, position: Tensor) -> None:
        """Join what is kept of N texts and B images: keys and values of each layer in turn.

        `texts` (2 * layers, N, H, L, W); `images` (2 * layers, B, H, P, W); `position` (1,): places
        of each text that are written.
        """
        self.texts, self.images, self.position = texts, images, position
        self.order = torch.arange(texts.shape[3], device=texts.device)
        self.layers = self._layers()

    def _layers(self) -> list[tuple[KeyValue, KeyValue]]:
        """Find the texts' and the images' part of each layer, once and not in each step."""
        texts, images = self.texts, self.images
        return [
            (KeyValue(texts[n], texts[n + 1]), KeyValue(images[n], images[n + 1]))
            for n in range(0, len(texts), 2)
        ]

    def expand(self, copies: int) -> None:
        """Continue every text in `copies` ways; copies of a text stand next to each other."""
        self.texts = self.texts.repeat_interleave(copies, dim=1)
        self.layers = self._layers()

    def reorder(self, rows: Tensor) -> None:
        """Let text i continue from text rows[i], of the same image."""
        self.texts = self.texts.index_select(1, rows)
        self.layers = self._layers()


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

    def encode_groups(self, groups: Sequence[TextGroup], images: Tensor) -> list[Tensor]:
        """Encode groups of texts, each as long as its longest, grounded in the same images.

        Image states (B, P, V) are projected once for all; only one layer's part is kept at a time.
        """
        hidden = [self.embeddings(group.ids) for group in groups]
        visible = [group.mask[:, None, None, :] for group in groups]
        for layer in self.encoder.layers():
            image = layer.crossattention.self.key_value(images)
            hidden = [
                layer(layer.attention(states, mask), image, group.slots)
                for states, mask, group in zip(hidden, visible, groups, strict=True)
            ]
        return hidden

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

    def make_cache(self, images: Tensor, texts: int, room: int) -> Cache:
        """Make room for image states (B, P, V) and for `room` tokens of so many texts."""
        layers = self.encoder.layers()
        layer: Projections = layers[0].attention.self
        heads, width = layer.heads, layer.query.out_features // layer.heads
        return Cache(
            images.new_zeros(2 * len(layers), texts, heads, room, width),
            images.new_empty(2 * len(layers), len(images), heads, images.shape[1], width),
            torch.zeros(1, dtype=torch.long, device=images.device),
        )

    def image_projections(self) -> list[nn.Linear]:
        """List what projects images: the keys of the first layer, its values, the next layer's."""
        layers = [layer.crossattention.self for layer in self.encoder.layers()]
        return [linear for layer in layers for linear in (layer.key, layer.value)]

    def lay_together(self) -> None:
        """Lay out the weights so that what reads the same states is one product."""
        lay_together(self.image_projections())
        for layer in self.encoder.layers():
            own: Projections = layer.attention.self
            lay_together((own.query, own.key, own.value))

    def see(self, images: Tensor, cache: Cache) -> None:
        """Project image states (B, P, V) into a cache, once for all steps."""
        linears = self.image_projections()
        # a GPU takes all in one product; a CPU is faster where each stays in its own cache
        size = len(linears) if images.device.type == "cuda" else 1
        for first in range(0, len(linears), size):
            projected = project(linears[first : first + size], images)
            for number, part in enumerate(projected, first):
                # every step reads these: laid out head by head, a step on a CPU takes half the time
                kept = cache.images[number]
                kept.copy_(part.unflatten(-1, (kept.shape[1], -1)).transpose(1, 2))

    def open_cache(self, images: Tensor, room: int) -> Cache:
        """Project image states (B, P, V) once for all steps and make room for `room` tokens."""
        cache = self.make_cache(images, len(images), room)
        self.see(images, cache)
        return cache

    def extend(self, ids: Tensor, cache: Cache) -> Tensor:
        """Read the next ids (N, T) left to right after what `cache` holds: (N, T, D)."""
        positions = cache.position + cache.order[: ids.shape[1]]
        hidden = self.embeddings(ids, positions)
        mask = (
            cache.order <= positions[:, None]
        )  # (T, L): a token sees itself and what is before it
        for layer, (texts, image) in zip(self.encoder.layers(), cache.layers, strict=True):
            hidden = layer(layer.attention(hidden, mask, CachedText(texts, positions)), image, None)
        cache.position += ids.shape[1]
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
        return self.LayerNorm(linear_gelu(self.dense, hidden))


class WordPredictions(nn.Module):
    """States to words; the matrix is the embedding's own, only the bias is extra."""

    def __init__(self, config: BlipTextConfig) -> None:
        super().__init__()
        self.transform = WordTransform(config)
        self.bias = nn.Parameter(torch.empty(config.vocab_size))
        self._packed: PackedLinear | None = None

    def forward(self, hidden: Tensor, words: Tensor) -> Tensor:
        """Map (..., D) to logits (..., C), given word embeddings (C, D)."""
        if self._packed is not None:
            return self._packed(self.transform(hidden))
        return F.linear(self.transform(hidden), words, self.bias)

    def pack(self, words: Tensor) -> None:
        """Predict from a packed copy of the word embeddings (C, D) from now on."""
        if can_pack(words):
            self._packed = PackedLinear(words, self.bias)


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

    def pack(self) -> None:
        """Pack the products, for reading alone, on a CPU: see `pack_linears`."""
        pack_linears(self)
        self.cls.predictions.pack(self.bert.embeddings.word_embeddings.weight)
