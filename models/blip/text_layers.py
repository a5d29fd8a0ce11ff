"""The parts of one layer of the text transformer, and the embeddings below the first.

Parameters carry the names of transformers' `BlipTextModel`. A layer's `attention`,
`crossattention`, `intermediate` and `output` are whole submodules, so that two transformers can
share some of them by assignment.

Several texts of one image attend to the same keys and values, which are projected once per image
and layer and never repeated: the texts stand side by side in the query axis.

Shapes: N texts, B images, T tokens, D width, V width of the image states, H heads.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn
from transformers import BlipTextConfig

from models.blip.products.packed import linear_gelu
from models.blip.products.side_by_side import project
from models.blip.sdpa import attend


class KeyValue(NamedTuple):
    """Keys and values of one layer, each (rows, H, places, D/H)."""

    key: Tensor
    value: Tensor


class CachedText(NamedTuple):
    """What a layer keeps of the texts so far, and the positions (T,) where the next tokens go."""

    kept: KeyValue
    positions: Tensor


@dataclass(frozen=True, slots=True)
class Slots:
    """Where the N texts stand in a grid of B images times a number of texts for each.

    `index` (N,): place in the flat grid; `size`: places in the grid, a multiple of B.
    """

    index: Tensor
    size: int


class TextGroup(NamedTuple):
    """Texts (N, T) that are read together: ids, what of them is no pad, and where they stand."""

    ids: Tensor
    mask: Tensor
    slots: Slots | None


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
        key, value = project((self.key, self.value), states)
        return KeyValue(self.split(key), self.split(value))


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

    def forward(self, hidden: Tensor, mask: Tensor, cached: CachedText | None = None) -> Tensor:
        """Map (N, T, D) to (N, T, D); with `cached`, write the new places there, and read all.

        `mask` is True where a query (second last axis) may look.
        """
        layer: Projections = self.self
        parts = project((layer.query, layer.key, layer.value), hidden)
        query, key, value = (layer.split(part) for part in parts)  # (N, H, T, D/H)
        if cached is not None:
            cached.kept.key.index_copy_(2, cached.positions, key)
            cached.kept.value.index_copy_(2, cached.positions, value)
            key, value = cached.kept
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
        if slots is not None:  # images have unequal numbers of texts: leave gaps, drop them after
            grid = query.new_zeros(slots.size, *query.shape[1:])
            query = grid.index_copy(0, slots.index, query)  # (B * texts, T, D)
        shape = query.shape
        # the texts of an image become one long query, so that its keys need no copy for each text
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
        return linear_gelu(self.dense, hidden)


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

    def forward(self, ids: Tensor, places: Tensor | None = None) -> Tensor:
        """Embed ids (N, T), which stand at `places` (T,), by default the first, as (N, T, D)."""
        if places is None:
            positions = self.position_embeddings.weight[: ids.shape[1]]
        else:
            positions = self.position_embeddings(places)
        return self.dropout(self.LayerNorm(self.word_embeddings(ids) + positions))
