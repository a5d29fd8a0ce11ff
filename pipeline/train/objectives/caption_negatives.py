"""A captioner's own captions as negatives of its filter, which so learns this captioner's mistakes.

A filter that was trained on texts of people knows their kind of error. What a captioner gets wrong
looks different: its captions are fluent, of the right words, and nearly right. Here the captioner
writes one text for each picture of a batch, another one in each epoch.
"""

from collections.abc import Sequence

import torch

from models.blip.framing import tokenize_batch
from models.blip.tokenizer import normalise
from models.checkpoints.folder import CheckpointContent
from models.checkpoints.locate import CheckpointError
from models.roles.captioner import BlipCaptioner
from models.training.finetuning import NegativeCaptions
from pipeline.train.dataloader import Batch
from pipeline.train.finetune_config import CaptionNegativesConfig


class CaptionNegatives:
    """Writes the captions of a batch, as a filter's network reads them."""

    def __init__(
        self,
        config: CaptionNegativesConfig,
        about: CheckpointContent,
        seed: int,
        device: torch.device,
    ) -> None:
        """Load the captioner; CheckpointError if it takes pictures of another form."""
        self._captioner = BlipCaptioner.load(
            config.captioner, decoding=config, seed=seed, dtype="fp32", device=device
        )
        if self._captioner.preprocess != about.preprocess:
            raise CheckpointError(
                f"{config.captioner} takes pictures as {self._captioner.preprocess}; expected "
                f"{about.preprocess}, as the filter does. Finetune both with the same image_size"
            )
        self._words, self._overlap, self._device = about.tokenizer, config.overlap, device

    def write(self, batch: Batch, epoch: float, length: int) -> NegativeCaptions:
        """Caption a batch's pictures; texts are cut and padded to `length` tokens."""
        names = [f"{key} {epoch:.6f}" for key in batch.keys]
        captions = self._captioner.caption(batch.pixels, names, 1)
        texts, words = [normalise(caption.text) for (caption,) in captions], self._words
        framed = tokenize_batch(words.encode(texts), words, words.cls_id, length, self._device)
        more = (0, length - framed.ids.shape[1])
        wrong = [
            is_unlike(text, references, self._overlap)
            for text, references in zip(texts, batch.references, strict=True)
        ]
        return NegativeCaptions(
            torch.nn.functional.pad(framed.ids, more, value=words.pad_id),
            torch.nn.functional.pad(framed.mask, more),
            torch.tensor(wrong, device=self._device),
        )


def is_unlike(text: str, references: Sequence[str], overlap: float) -> bool:
    """Check that a text shares less than this share of words with every reference."""
    words = set(text.split())
    others = (set(normalise(reference).split()) for reference in references)
    return all(len(words & other) / max(len(words | other), 1) < overlap for other in others)
