"""The text transformer: encoder, image-grounded encoder and decoder in one (BLIP §3.2).

Parameters carry the names of transformers' `BlipTextModel` and `BlipTextLMHeadModel`. A layer's
`attention`, `crossattention`, `intermediate` and `output` are whole submodules, so that two
transformers can share some of them by assignment.

Several texts of one image attend to the same keys and values, which are projected once per image
and layer and never repeated: the texts stand side by side in the query axis.

Training may recompute layers to save memory: an attribute of `TextEncoder`. Dropout comes from the
config and has no effect on evaluation.

Shapes: N texts, B images, T tokens, L tokens that a cache has room for, P image states, D width,
V width of the image states, H heads, C vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute
from transformers import BlipTextConfig

from models.blip.sdpa import attend


class KeyValue(NamedTuple):
    """Keys and values of one layer, each (rows, H, places, D/H)."""

    key: Tensor
    value: Tensor


Images = Tensor | list[KeyValue] | None
"""States (B, P, V), or what `TextTransformer.project_images` made of them for each layer."""


@dataclass(frozen=True, slots=True)
class Slots:
    """Where the N texts stand in a grid of B images times a number of texts for each.

    `index` (N,): place in the flat grid; `size`: places in the grid, a multiple of B.
    """

    index: Tensor
    size: int


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


class Projections(nn.Module):
    """Query, key and value of self-attention (`source` = D) or cross-attention (`source` = V)."""

    def __init__(self, config: BlipTextConfig, source: int) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.probability = float(config.attention_probs_dropout_prob)
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(source, config.hidden_size)
        self.value = nn.Linear(source, config.hidden_size)

    @property
    def dropout(self) -> float:
        """The probability that attention passes over a place."""
        return self.probability if self.training else 0.0

    def split(self, projected: Tensor) -> Tensor:
        """Turn (rows, places, D) into (rows, H, places, D/H)."""
        return projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def key_value(self, states: Tensor) -> KeyValue:
        """Project states (rows, places, source)."""
        return KeyValue(self.split(self.key(states)), self.split(self.value(states)))


class AddNorm(nn.Module):
    """Project, add the residual and normalise."""

    def __init__(self, config: BlipTextConfig, source: int) -> None:
        super().__init__()
        self.dense = nn.Linear(source, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, update: Tensor, residual: Tensor) -> Tensor:
        """Combine (N, T, source) with (N, T, D) into (N, T, D)."""
        return self.LayerNorm(self.dropout(self.dense(update)) + residual)


class SelfAttention(nn.Module):
    """Attention of a text to itself."""

    def __init__(self, config: BlipTextConfig) -> None:
        super().__init__()
        self.self = Projections(config, config.hidden_size)
        self.output = AddNorm(config, config.hidden_size)

    def forward(
        self, hidden: Tensor, mask: Tensor | None, cached: KeyValue | None = None, start: int = 0
    ) -> Tensor:
        """Map (N, T, D) to (N, T, D); with `cached`, write the new places there from `start` on.

        `mask` is True where a query (second last axis) may look.
        """
        layer: Projections = self.self
        query = layer.split(layer.query(hidden))  # (N, H, T, D/H)
        key, value = layer.key_value(hidden)
        if cached is not None:
            end = start + hidden.shape[1]
            cached.key[:, :, start:end] = key
            cached.value[:, :, start:end] = value
            key, value = cached.key[:, :, :end], cached.value[:, :, :end]
        mixed = attend(query, key, value, mask, layer.dropout)
        return self.output(mixed.transpose(1, 2).flatten(2), hidden)


class CrossAttention(nn.Module):
    """Attention of the texts of an image to the image."""

    def __init__(self, config: BlipTextConfig) -> None:
        super().__init__()
        self.self = Projections(config, config.encoder_hidden_size)
        self.output = AddNorm(config, config.hidden_size)

    def forward(self, hidden: Tensor, image: KeyValue, slots: Slots | None) -> Tensor:
        """Map (N, T, D) to (N, T, D) given B images.

        Without `slots`, every image has N/B texts, which stand next to each other.
        """
        layer: Projections = self.self
        query = layer.query(hidden)
        if slots is not None:
            grid = query.new_zeros(slots.size, *query.shape[1:])
            query = grid.index_copy(0, slots.index, query)  # (B * texts, T, D)
        shape = query.shape
        query = query.reshape(len(image.key), -1, shape[-1])  # (B, texts * T, D)
        mixed = attend(layer.split(query), image.key, image.value, dropout=layer.dropout)
        mixed = mixed.transpose(1, 2).reshape(shape)
        if slots is not None:
            mixed = mixed[slots.index]
        return self.output(mixed, hidden)


class Intermediate(nn.Module):
    """The widening half of the feed-forward network."""

    def __init__(self, config: BlipTextConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N, T, D) to (N, T, intermediate)."""
        return F.gelu(self.dense(hidden))


class TextLayer(nn.Module):
    """One post-norm layer; cross-attention is skipped where no image is given."""

    def __init__(self, config: BlipTextConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.crossattention = CrossAttention(config)
        self.intermediate = Intermediate(config)
        self.output = AddNorm(config, config.intermediate_size)

    def forward(self, hidden: Tensor, image: KeyValue | None, slots: Slots | None) -> Tensor:
        """Finish the layer after self-attention: (N, T, D) to (N, T, D)."""
        if image is not None:
            hidden = self.crossattention(hidden, image, slots)
        return self.output(self.intermediate(hidden), hidden)


class TextEmbeddings(nn.Module):
    """Words plus positions."""

    def __init__(self, config: BlipTextConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, ids: Tensor, start: int = 0) -> Tensor:
        """Embed ids (N, T), of which the first stands at position `start`, as (N, T, D)."""
        positions = self.position_embeddings.weight[start : start + ids.shape[1]]
        return self.dropout(self.LayerNorm(self.word_embeddings(ids) + positions))


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
