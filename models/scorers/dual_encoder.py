"""Any dual encoder of transformers: CLIP, SigLIP and what is built like them.

Pictures and texts meet as unit vectors. Their cosine is a fact of the pair, and so is the
probability of families that were trained with a sigmoid; a softmax over the texts at hand is not.

Shapes: B pictures, N texts over all pictures, E width of the common space.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import (
    MODEL_MAPPING,
    AutoModel,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from models.blip.config import TORCH_DTYPES, DtypeChoice, resolve_dtype
from models.checkpoints.locate import CheckpointError
from models.guests.batch import collate, held_bytes, to_model
from models.guests.folder import (
    as_checkpoint_errors,
    count_parameters,
    digest,
    load_network,
    locate,
    pin,
    read_config,
)
from models.guests.picture import Prepared, bounded
from models.guests.processor import open_image_processor
from models.scorers.config import DualEncoderConfig
from models.scorers.scorer import ScorerInfo, TextScores

# trained with a sigmoid a pair: a bias beside the scale, and texts that are always padded in full,
# since the last position is what stands for the text, pad or not
_SIGMOID_FAMILIES = {"siglip", "siglip2"}
# texts whose positions are counted from behind the pad's id on
_OFFSET_POSITIONS = {"altclip_text_model", "camembert", "roberta", "xlm-roberta", "xlm-roberta-xl"}
_USUAL_POSITIONS = 77
_NO_LIMIT = 1 << 20  # tokenizers write 1e30 where they know none


@dataclass(frozen=True, slots=True)
class _Opened:
    """All of a scorer but its weights."""

    folder: Path
    model_type: str
    images: Any
    tokenizer: Any
    sigmoid: bool
    max_tokens: int
    digest: str

    @property
    def scores(self) -> tuple[str, ...]:
        return ("cosine", "prob") if self.sigmoid else ("cosine",)


def check(config: DualEncoderConfig) -> ScorerInfo:
    """Check all of a scorer but its weights; CheckpointError says what is wrong with it."""
    opened = _open(config)
    pinned = pin(config.model, config.revision)
    there = config.model_copy(update={"model": pinned.name, "revision": pinned.revision})
    parameters = count_parameters(opened.folder)
    about = {"model_type": opened.model_type}
    return ScorerInfo(opened.digest, there, opened.scores, parameters, about)


class DualEncoder:
    """A loaded dual encoder; a score does not depend on the rest of its batch."""

    def __init__(
        self,
        config: DualEncoderConfig,
        *,
        dtype: DtypeChoice = "auto",
        device: str | torch.device = "cpu",
    ) -> None:
        """Load a folder; CheckpointError if it is no dual encoder or lacks weights."""
        opened = _open(config)
        self.digest, self.scores = opened.digest, opened.scores
        self._opened, self._lowercase = opened, config.lowercase
        self._max_pixels = config.max_pixels
        self.prepare_key = _key(opened.digest, config)
        self._device, self._dtype = torch.device(device), TORCH_DTYPES[resolve_dtype(dtype, device)]
        network = load_network(AutoModel, opened.folder, dtype=self._dtype)
        self._network = network.to(self._device)

    def prepare(self, picture: Image.Image) -> Prepared:
        """Make a picture ready by the family's own processor; several threads may ask at once."""
        images = [bounded(picture, self._max_pixels)]
        made = dict(self._opened.images(images=images, return_tensors="pt"))
        return Prepared(made, held_bytes(made))

    @torch.inference_mode()
    def score(
        self, batch: Sequence[Prepared], texts: Sequence[Sequence[str]]
    ) -> list[list[TextScores]]:
        """Score the texts of each prepared picture; their numbers may differ, and may be 0."""
        flat = [self._as_read(text) for group in texts for text in group]
        if not flat:
            return [[] for _ in texts]
        counts = [len(group) for group in texts]
        owner = torch.repeat_interleave(torch.tensor(counts))  # (N,) picture of a text
        pictures = self._pictures(batch)[owner.to(self._device)]
        cosines = (pictures * self._texts(flat)).sum(-1)  # (N,)
        values = [cosines, self._sigmoid(cosines)] if self._opened.sigmoid else [cosines]
        rows = torch.stack(values, dim=-1).tolist()
        lengths = self._count(flat)
        scored = (
            TextScores(tuple(row), length, length > self._room)
            for row, length in zip(rows, lengths, strict=True)
        )
        return [[next(scored) for _ in group] for group in texts]

    @property
    def _room(self) -> int:
        special = self._opened.tokenizer.num_special_tokens_to_add()
        return self._opened.max_tokens - int(special)

    def _as_read(self, text: str) -> str:
        return text.lower() if self._lowercase else text

    def _count(self, texts: list[str]) -> list[int]:
        rows = self._opened.tokenizer(texts, add_special_tokens=False, verbose=False)
        return [len(row) for row in rows["input_ids"]]

    def _pictures(self, batch: Sequence[Prepared]) -> Tensor:
        """Compute unit vectors (B, E) in fp32."""
        inputs = collate([prepared.content for prepared in batch], pad_id=0)
        made = self._network.get_image_features(**to_model(inputs, self._device, self._dtype))
        return self._unit(made)

    def _texts(self, texts: list[str]) -> Tensor:
        """Compute unit vectors (N, E) in fp32."""
        tokens = self._opened.tokenizer(
            texts,
            padding="max_length" if self._opened.sigmoid else "longest",
            max_length=self._opened.max_tokens,
            truncation=True,
            return_tensors="pt",
        )
        made = self._network.get_text_features(**to_model(tokens, self._device, self._dtype))
        return self._unit(made)

    def _unit(self, made: Any) -> Tensor:  # noqa: ANN401 - a ModelOutput, of one kind or another
        features: Tensor = made.pooler_output
        return F.normalize(features.float(), dim=-1)

    def _sigmoid(self, cosines: Tensor) -> Tensor:
        scale, bias = self._network.logit_scale.float().exp(), self._network.logit_bias.float()
        return torch.sigmoid(cosines * scale + bias)


def _open(config: DualEncoderConfig) -> _Opened:
    folder = locate(config.model, config.revision)
    network = read_config(folder)
    _check_kind(folder, network)
    with as_checkpoint_errors(folder):
        images = open_image_processor(folder, config.image_backend)
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    most = _positions(network, tokenizer)
    if config.max_tokens is not None and config.max_tokens > most:
        raise CheckpointError(
            f"max_tokens is {config.max_tokens}, but {folder} reads at most {most}"
        )
    sigmoid = network.model_type in _SIGMOID_FAMILIES
    limit = config.max_tokens or most
    content = config.digest_of(digest(folder))
    return _Opened(folder, network.model_type, images, tokenizer, sigmoid, limit, content)


def _check_kind(folder: Path, network: PreTrainedConfig) -> None:
    if network.model_type == "blip":
        raise CheckpointError(f"{folder} holds a BLIP model; give it as kind: blip")
    kind = MODEL_MAPPING.get(type(network), None)
    kinds = kind if isinstance(kind, tuple) else (kind,)
    wanted = ("get_image_features", "get_text_features")
    if not any(all(hasattr(each, name) for name in wanted) for each in kinds):
        raise CheckpointError(
            f"{folder} holds a {network.model_type}, which puts no pictures and texts in one "
            "space. Give a dual encoder, such as the hub's google/siglip2-base-patch16-224"
        )


def _positions(network: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Find how many tokens of a text a network reads, special ones included."""
    text = network.get_text_config()
    most = int(getattr(text, "max_position_embeddings", _USUAL_POSITIONS))
    if text.model_type in _OFFSET_POSITIONS:
        most -= int(text.pad_token_id) + 1
    limit = int(min(tokenizer.model_max_length, _NO_LIMIT))
    return min(most, limit)


def _key(folder_digest: str, config: DualEncoderConfig) -> str:
    """Name how pictures are prepared: by which processor, in which bounds."""
    facts = [folder_digest, config.max_pixels, config.image_backend]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
