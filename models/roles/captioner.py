"""The captioner: writes texts for images with the image-grounded decoder (BLIP §3.2, LM)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, Unpack

import torch
from torch import Tensor

from models.blip.networks import CaptionNetwork
from models.checkpoints import checkpoint
from models.checkpoints.description import Description
from models.decoding import beam
from models.decoding.config import Decoding
from models.decoding.draft import DecoderStart, Rules
from models.decoding.generate import Eager, GeneratedTexts, Stepper, write_texts
from models.decoding.graphs import CudaRecorder, Graphs, RecordingError
from models.decoding.sampling import text_seeds
from models.roles.role import LoadedModel, LoadOptions

_log = logging.getLogger(__name__)


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


def prompt_start(described: Description, decoding: Decoding) -> DecoderStart:
    """Tokenise the prompt; ValueError if it and the token limit exceed the network's positions."""
    words = described.tokenizer
    prompt = [words.dec_id, *words.encode([decoding.prompt])[0]]
    if len(prompt) + decoding.max_tokens > described.positions:
        raise ValueError(
            f"a prompt of {len(prompt)} tokens and max_tokens {decoding.max_tokens} exceed "
            f"the {described.positions} positions of {described.folder}; lower max_tokens"
        )
    return DecoderStart(prompt, words.sep_id, words.pad_id)


class BlipCaptioner(LoadedModel[CaptionNetwork]):
    """A loaded captioner; equal arguments give equal texts, in whatever batch an image stands."""

    network_types = (CaptionNetwork,)

    def __init__(self, loaded: checkpoint.Checkpoint, decoding: Decoding, seed: int) -> None:
        """Prepare a loaded checkpoint; ValueError if the token limit exceeds the network's."""
        super().__init__(loaded)
        self._decoding, self._seed = decoding, seed
        self._start = prompt_start(self.description, decoding)
        decoder = self.network.text_decoder
        self._eager = Eager(decoder, Rules(self._start, decoding))
        self._stepper: Stepper = self._eager
        if self.device.type == "cuda" and decoding.method != "beam":
            self._stepper = Graphs(decoder, self._start, decoding, CudaRecorder())

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        decoding: Decoding,
        seed: int = 0,
        **options: Unpack[LoadOptions],
    ) -> Self:
        """Load a captioning checkpoint from a local folder."""
        model = cls(checkpoint.load(folder, "captioner", **options), decoding, seed)
        model.only_read(options.get("dtype", "auto"))
        return model

    def write_step_by_step(self) -> None:
        """Write captions without recorded steps from now on, on a GPU, too: slower."""
        self._stepper = self._eager

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
        states = self.image_states(images)
        return [self._finish(texts) for texts in self._generate(states, keys, count)]

    def _generate(
        self, states: Tensor, keys: Sequence[str], count: int
    ) -> list[list[GeneratedTexts]]:
        decoder, start, decoding = self.network.text_decoder, self._start, self._decoding
        if decoding.method == "beam":
            rule = self.settings.length_rule
            ranked = beam.beam_search(decoder, states, start, decoding, rule)
            return [texts[:count] for texts in ranked]
        # a text's randomness is its key's and number's own: the batch and its order change nothing
        seeds = text_seeds(self._seed, keys, count) if decoding.method == "nucleus" else None
        texts = self._write(states, seeds)
        return [texts[first : first + count] for first in range(0, len(texts), count)]

    def _write(self, states: Tensor, seeds: list[int] | None) -> list[GeneratedTexts]:
        try:
            return write_texts(self._stepper, states, seeds)
        except RecordingError as error:
            _log.warning("%s; captions are written step by step, which is slower", error)
        self.write_step_by_step()
        return write_texts(self._stepper, states, seeds)

    def _finish(self, texts: list[GeneratedTexts]) -> list[Caption]:
        words = self.tokenizer.decode([text.ids for text in texts])
        return [
            Caption(word, text.logprob, len(text.ids), not text.ended)
            for word, text in zip(words, texts, strict=True)
        ]
