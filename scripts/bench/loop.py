"""transformers' processor and models, as one who writes a loop of his own has them."""

from collections.abc import Sequence
from typing import Any

import transformers
from transformers import PreTrainedModel

from models.blip.config import ARCHITECTURES, TORCH_DTYPES, Dtype
from scripts.bench.inputs import ROLES, Inputs, Pairs

PROMPT, CUT = "a picture of", {"truncation": True, "max_length": 35}


class Loop:
    """Their processor and models."""

    def __init__(self, inputs: Inputs, dtype: Dtype) -> None:
        transformers.utils.logging.disable_progress_bar()
        folder, self.device = inputs.folder, inputs.device
        self.processor = transformers.BlipProcessor.from_pretrained(folder / "captioner")
        models = [getattr(transformers, ARCHITECTURES[role]) for role in ROLES]
        loaded = (_load(kind, folder / role) for kind, role in zip(models, ROLES, strict=True))
        dtyped = (model.to(self.device, TORCH_DTYPES[dtype]).eval() for model in loaded)
        self.captioner, self.scorer = dtyped
        count = inputs.tokens
        self.lengths: dict[str, Any] = {"min_new_tokens": count, "max_new_tokens": count}
        self.lengths |= {"do_sample": True, "top_p": 0.9, "top_k": 0}

    def look(self, pairs: Pairs) -> Any:  # noqa: ANN401 - transformers' batch
        """Preprocess pictures, with the prompt."""
        images = [image for image, _ in pairs]
        batch = self.processor(images, [PROMPT] * len(images), return_tensors="pt")
        return batch.to(self.device, self.captioner.dtype)

    def words(self, texts: Sequence[str]) -> Any:  # noqa: ANN401 - transformers' batch
        """Tokenize texts, padded to the longest."""
        batch = self.processor(text=list(texts), padding=True, return_tensors="pt", **CUT)
        return batch.to(self.device)

    def caption(self, batch: Any) -> list[str]:  # noqa: ANN401 - transformers' batch
        """Write a caption for each picture."""
        ids = self.captioner.generate(**batch, **self.lengths)
        return list(self.processor.batch_decode(ids, skip_special_tokens=True))


def _load(kind: type[PreTrainedModel], folder: object) -> Any:  # noqa: ANN401 - any model
    """Load with SDPA where the class has it; BLIP's has not in transformers 5.23."""
    try:
        return kind.from_pretrained(folder, attn_implementation="sdpa")
    except ValueError:
        return kind.from_pretrained(folder)
