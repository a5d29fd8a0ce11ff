"""The captioner: writes texts for images with the image-grounded decoder (BLIP §3.2, LM)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from models.blip.config import TORCH_DTYPES, Dtype, resolve_dtype
from models.blip.networks import CaptionNetwork
from models.checkpoints import checkpoint
from models.decoding import beam
from models.decoding import generate as decoding
from models.decoding.generate import DecoderStart, Decoding, GeneratedTexts
from models.decoding.sampling import text_seeds


@dataclass(frozen=True, slots=True)
class Caption:
    """A text that the model wrote.

    `text` has no prompt. `logprob` is the mean log-probability per generated token under the
    model, before penalties and the nucleus. `tokens` counts the text's tokens without prompt and
    end token. `truncated`: the token limit came before the end token.
    """

    text: str
    logprob: float
    tokens: int
    truncated: bool


def prompt_start(described: checkpoint.Description, decoding: Decoding) -> DecoderStart:
    """Tokenise the prompt; ValueError if it and the token limit exceed the network's positions."""
    words = described.tokenizer
    prompt = [words.dec_id, *words.encode([decoding.prompt])[0]]
    most = described.config.text_config.max_position_embeddings
    if len(prompt) + decoding.max_tokens > most:
        raise ValueError(
            f"a prompt of {len(prompt)} tokens and max_tokens {decoding.max_tokens} exceed "
            f"the {most} positions of {described.folder}; lower max_tokens"
        )
    return DecoderStart(prompt, words.sep_id, words.pad_id)


class BlipCaptioner:
    """A loaded captioner; equal arguments give equal texts, in whatever batch an image stands."""

    def __init__(
        self, loaded: checkpoint.Checkpoint, decoding: Decoding, seed: int, dtype: Dtype
    ) -> None:
        """Prepare a loaded checkpoint; ValueError if the token limit exceeds the network's."""
        assert isinstance(loaded.network, CaptionNetwork)
        described = loaded.description
        words = described.tokenizer
        self.digest = loaded.digest
        self.preprocess = described.preprocess
        self._network = loaded.network
        self._words = words
        self._rule = described.settings.length_rule
        self._decoding, self._seed, self._dtype = decoding, seed, dtype
        self._start = prompt_start(described, decoding)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        decoding: Decoding,
        seed: int = 0,
        dtype: Literal["auto", "fp32", "bf16"] = "auto",
        device: str | torch.device = "cpu",
    ) -> "BlipCaptioner":
        """Load a captioning checkpoint from a local folder."""
        resolved = resolve_dtype(dtype, device)
        loaded = checkpoint.load(Path(folder), "captioner", dtype=resolved, device=device)
        return cls(loaded, decoding, seed, resolved)

    @torch.inference_mode()
    def caption(self, images: Tensor, keys: Sequence[str], count: int) -> list[list[Caption]]:
        """Write `count` texts for each image.

        `images`: uint8 (B, 3, H, W), resized by `preprocess`; `keys`: B names, which with the seed
        fix what is sampled. ValueError if the method has fewer than `count` texts to give.
        """
        most = {"nucleus": count, "beam": self._decoding.beams, "greedy": 1}[self._decoding.method]
        if not 1 <= count <= most:
            raise ValueError(f"{self._decoding.method} decoding gives 1 to {most} texts an image")
        if len(keys) == 0:
            return []
        device = next(self._network.parameters()).device
        pixels = self.preprocess.normalise(images.to(device), TORCH_DTYPES[self._dtype])
        states = self._network.vision_model(pixels)
        return [self._finish(texts) for texts in self._generate(states, keys, count)]

    def _generate(
        self, states: Tensor, keys: Sequence[str], count: int
    ) -> list[list[GeneratedTexts]]:
        decoder, start, chosen = self._network.text_decoder, self._start, self._decoding
        if chosen.method == "beam":
            found = beam.beam_search(decoder, states, start, chosen, self._rule)
            return [texts[:count] for texts in found]
        if chosen.method == "greedy":
            return [[text] for text in decoding.greedy(decoder, states, start, chosen)]
        seeds = text_seeds(self._seed, keys, count)
        texts = decoding.nucleus(decoder, states, start, chosen, seeds)
        return [texts[first : first + count] for first in range(0, len(texts), count)]

    def _finish(self, texts: list[GeneratedTexts]) -> list[Caption]:
        words = self._words.decode([text.ids for text in texts])
        return [
            Caption(word, text.logprob, len(text.ids), not text.ended)
            for word, text in zip(words, texts, strict=True)
        ]
