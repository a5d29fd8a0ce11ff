"""Any image-text-to-text model of transformers, opened as its folder is.

Pictures are prepared one by one by the family's own processor, in native resolution if it has one,
and padded on the left by one rule. In fp32 a caption does not depend on its batch.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoModelForImageTextToText,
    PreTrainedConfig,
)

from models.blip.config import TORCH_DTYPES, DtypeChoice, resolve_dtype
from models.captioners.captioner import Caption, CaptionerInfo
from models.captioners.config import TransformersCaptionerConfig
from models.captioners.generation import (
    DecodingPlan,
    Draws,
    end_ids,
    for_count,
    forget_folder,
    plan,
)
from models.checkpoints.locate import CheckpointError
from models.decoding.sampling import text_seeds
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
from models.guests.processor import PromptedProcessor

_TRIAL_PICTURE = (48, 32)  # pixels; any would do


@dataclass(frozen=True, slots=True)
class _Opened:
    """All of a captioner but its weights."""

    folder: Path
    config: PreTrainedConfig
    processor: PromptedProcessor
    plan: DecodingPlan
    digest: str


def check(config: TransformersCaptionerConfig) -> CaptionerInfo:
    """Check all of a captioner but its weights; CheckpointError says what is wrong with it."""
    pinned = pin(config.model, config.revision)
    opened = _open(config)
    return CaptionerInfo(
        opened.digest,
        config.model_copy(update={"model": pinned.name, "revision": pinned.revision}),
        count_parameters(opened.folder),
        about={"model_type": opened.config.model_type},
    )


class TransformersCaptioner:
    """A loaded guest; equal arguments give equal texts, in whatever batch a picture stands."""

    def __init__(
        self,
        config: TransformersCaptionerConfig,
        *,
        seed: int = 0,
        dtype: DtypeChoice = "auto",
        device: str | torch.device = "cpu",
    ) -> None:
        """Load a folder; CheckpointError if it is no captioner or lacks weights."""
        opened = _open(config)
        self.digest, self._seed, self._max_pixels = opened.digest, seed, config.max_pixels
        self._processor, self._plan = opened.processor, opened.plan
        self.prepare_key = _key(opened.digest, config)
        self._device, self._dtype = torch.device(device), TORCH_DTYPES[resolve_dtype(dtype, device)]
        network = load_network(AutoModelForImageTextToText, opened.folder, dtype=self._dtype)
        forget_folder(network, self._plan.settings)
        self._network = network.to(self._device)
        self._ends = end_ids(self._plan.settings, self._processor.tokenizer)

    def prepare(self, picture: Image.Image) -> Prepared:
        """Make a picture ready by the family's own processor; several threads may ask at once."""
        made = self._processor(bounded(picture, self._max_pixels))
        return Prepared(made, held_bytes(made))

    @torch.inference_mode()
    def caption(
        self, batch: Sequence[Prepared], keys: Sequence[str], count: int
    ) -> list[list[Caption]]:
        """Write `count` captions for each prepared picture; keys and the seed fix the draws.

        ValueError if the method has fewer than `count` texts to give.
        """
        most = self._plan.most or count
        if not 1 <= count <= most:
            raise ValueError(f"this decoding gives 1 to {most} texts a picture, not {count}")
        if not batch:
            return []
        inputs = collate([prepared.content for prepared in batch], self._processor.pad_id)
        draws = Draws(self._plan.draw, text_seeds(self._seed, keys, count), self._plan.settings)
        written = self._network.generate(
            **to_model(inputs, self._device, self._dtype),
            generation_config=for_count(self._plan.settings, count),
            logits_processor=[draws],
        )
        captions = self._read(written[:, draws.begin :], draws)
        return [captions[first : first + count] for first in range(0, len(captions), count)]

    def _read(self, written: Tensor, draws: Draws) -> list[Caption]:
        """Cut rows of tokens (N, T) at their ends, and write them as texts."""
        rows = written.tolist()
        lengths = [
            next((place for place, token in enumerate(row) if token in self._ends), len(row))
            for row in rows
        ]
        cut = [length == len(row) for length, row in zip(lengths, rows, strict=True)]
        counted = [length + (not whole) for length, whole in zip(lengths, cut, strict=True)]
        ids = [row[:length] for row, length in zip(rows, lengths, strict=True)]
        texts = self._processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [
            Caption(text.strip(), logprob, length, whole)
            for text, logprob, length, whole in zip(
                texts, draws.logprobs(counted), lengths, cut, strict=True
            )
        ]


def _open(config: TransformersCaptionerConfig) -> _Opened:
    folder = locate(config.model, config.revision)
    network = read_config(folder)
    if type(network) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise CheckpointError(
            f"{folder} holds a {network.model_type}, which writes no texts for pictures. Give an "
            "image-text-to-text model, such as the hub's florence-community/Florence-2-base"
        )
    processor = PromptedProcessor(folder, network, config.prompt, config.image_backend)
    with as_checkpoint_errors(folder):  # a prompt that does not fit is told here
        processor(Image.new("RGB", _TRIAL_PICTURE))
    content = config.digest_of(digest(folder))
    return _Opened(folder, network, processor, plan(config, folder, network), content)


def _key(folder_digest: str, config: TransformersCaptionerConfig) -> str:
    """Name how pictures are prepared: by which processor, with which words, in which bounds."""
    facts = [folder_digest, config.prompt, config.max_pixels, config.image_backend]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
