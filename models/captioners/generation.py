"""How `generate` of transformers is told to decode, and what is read of it while it does.

`generate` takes whatever it is not told from the folder's generation_config.json. So either every
setting is told, or the folder's are taken on purpose. It has no generator for each row either: a
token is drawn by a logits processor, which leaves no other one possible.

Shapes: N texts, C vocabulary, T tokens so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, PreTrainedConfig, PreTrainedModel

from models.captioners.config import TransformersCaptionerConfig
from models.checkpoints.locate import CheckpointError
from models.decoding import sampling
from models.guests.folder import as_checkpoint_errors

_FILE = "generation_config.json"
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
# ways to sample that a folder may name and that have no generator for each row here
_NOT_DRAWN = ("min_p", "top_h", "penalty_alpha", "dola_layers", "watermarking_config")
_NEUTRAL = {"typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0}


@dataclass(frozen=True, slots=True)
class DecodingPlan:
    """How texts are decoded: `draw` is what is left to our processor, None for a beam search."""

    settings: GenerationConfig
    draw: "Draw | None"
    most: int | None  # texts that a picture can have; None for any number


@dataclass(frozen=True, slots=True)
class Draw:
    """How a token is taken: the most probable one, or drawn among what temperature and cuts leave.

    As transformers has it, `top_k` 0 is no cut.
    """

    sampled: bool
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def pick(self, scores: Tensor, streams: Tensor) -> Tensor:
        """Take a token for each row of scores (N, C), by this step's streams (N, 1): (N,)."""
        if not self.sampled:
            return scores.argmax(-1)
        probabilities = sampling.keep_top(scores / self.temperature, self.top_k).softmax(-1)
        race = sampling.exponentials(streams, scores.shape[-1])
        return sampling.nucleus(probabilities, race, self.top_p)[0]


class Draws(LogitsProcessor):
    """Notes where captions begin, takes each token, and sums what the model thinks of it.

    It is called behind transformers' penalties, so that log-probabilities are as
    `compute_transition_scores` has them.
    """

    def __init__(self, draw: Draw | None, seeds: Sequence[int], settings: GenerationConfig) -> None:
        self.begin: int | None = None
        self._draw = draw
        self._streams = sampling.step_streams(seeds, settings.max_new_tokens or 0)
        self._gains: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Leave one token of each row possible; of a beam search, all."""
        if self.begin is None:
            self.begin = input_ids.shape[1]
        if self._draw is None:
            return scores
        step = len(self._gains)
        streams = self._streams[:, step : step + 1].to(scores.device)
        tokens = self._draw.pick(scores, streams)[:, None]
        self._gains.append(scores.log_softmax(-1).gather(-1, tokens))
        return torch.full_like(scores, -torch.inf).scatter(-1, tokens, 0)

    def logprobs(self, lengths: Sequence[int]) -> list[float | None]:
        """Return the mean log-probability of the first tokens of each row, so many of each."""
        if not self._gains:
            return [None] * len(lengths)
        gains = torch.cat(self._gains, dim=-1).tolist()
        return [sum(row[:n]) / n for row, n in zip(gains, lengths, strict=True)]


def plan(
    config: TransformersCaptionerConfig, folder: Path, network: PreTrainedConfig
) -> DecodingPlan:
    """Decide how to decode; CheckpointError for what a folder asks and is not done here."""
    folders = _read(folder, network)
    if config.generation == "folder":
        return _plan_of_folder(config, folders, folder)
    beam = config.method == "beam"
    settings = GenerationConfig(
        **{name: getattr(folders, name) for name in _IDS},
        max_new_tokens=config.max_tokens,
        min_new_tokens=config.min_tokens or None,
        num_beams=config.beams if beam else 1,
        length_penalty=config.length_penalty,
        repetition_penalty=config.repetition_penalty,
        no_repeat_ngram_size=config.no_repeat_ngram,
    )
    if beam:
        return DecodingPlan(settings, None, config.beams)
    sampled = config.method == "nucleus"
    draw = Draw(sampled, config.temperature, config.top_k, config.top_p)
    return DecodingPlan(settings, draw, None if sampled else 1)


def for_count(settings: GenerationConfig, count: int) -> GenerationConfig:
    """Ask for so many texts of each picture; the draw that follows ours has one choice left."""
    sampled = count > 1 and (settings.num_beams or 1) == 1  # greedy gives one text alone
    return GenerationConfig(
        **settings.to_dict()
        | {
            "num_return_sequences": count,
            "do_sample": sampled,
            "temperature": 1.0 if sampled else None,
            "top_k": 0 if sampled else None,
            "top_p": 1.0 if sampled else None,
            "return_dict_in_generate": False,
        }
    )


def forget_folder(network: PreTrainedModel, settings: GenerationConfig) -> None:
    """Let `generate` fill nothing in from the folder, in networks within the network neither."""
    for part in network.modules():
        kept = getattr(part, "generation_config", None)
        if kept is not None:
            ids = {name: _or(getattr(settings, name), getattr(kept, name)) for name in _IDS}
            part.generation_config = GenerationConfig(**ids)


def end_ids(settings: GenerationConfig, tokenizer: Any) -> set[int]:  # noqa: ANN401 - of any make
    """Collect the tokens that end a text: the folder's, maybe several, and the tokenizer's."""
    named = settings.eos_token_id
    ends = {named} if isinstance(named, int) else set(named or ())
    if tokenizer.eos_token_id is not None:
        ends.add(int(tokenizer.eos_token_id))
    return ends


def _read(folder: Path, config: PreTrainedConfig) -> GenerationConfig:
    """Read a folder's settings; those of old folders stand in config.json."""
    if not (folder / _FILE).is_file():
        return GenerationConfig.from_model_config(config)
    with as_checkpoint_errors(folder):
        return GenerationConfig.from_pretrained(folder, local_files_only=True)


def _plan_of_folder(
    config: TransformersCaptionerConfig, folders: GenerationConfig, folder: Path
) -> DecodingPlan:
    beams, sampled = folders.num_beams or 1, bool(folders.do_sample)
    used = [name for name in _NOT_DRAWN if getattr(folders, name, None) is not None]
    used += [
        name
        for name, neutral in _NEUTRAL.items()
        if getattr(folders, name, None) not in (None, neutral)
    ]
    if sampled and beams > 1:
        used.append("do_sample with num_beams")
    if used and (sampled or "penalty_alpha" in used):
        raise CheckpointError(
            f"{folder}/{_FILE} asks for {', '.join(used)}, which is not done here. "
            "Say how to decode in the recipe: generation: recipe"
        )
    most = None if sampled else beams
    if most is not None and config.candidates > most:
        raise CheckpointError(
            f"candidates is {config.candidates}, but {folder}/{_FILE} has "
            f"{'a search of ' + str(beams) + ' beams' if beams > 1 else 'greedy decoding'}, which "
            f"writes at most {most} for a picture"
        )
    settings = GenerationConfig(**folders.to_dict() | {"max_new_tokens": config.max_tokens})
    if beams > 1:
        return DecodingPlan(settings, None, beams)
    top_k, top_p = _or(folders.top_k, 50), _or(folders.top_p, 1.0)
    return DecodingPlan(settings, Draw(sampled, _or(folders.temperature, 1.0), top_k, top_p), most)


def _or(value: Any, default: Any) -> Any:  # noqa: ANN401 - a setting that may be unset
    return default if value is None else value
