"""The pre-training network and its step: ITC, ITM and LM together (BLIP §3.2).

`text_decoder.bert` shares whole submodules with `text_encoder`: all but each layer's `attention`
(§3.2, Table 3). A state dict names a shared tensor once, as `text_encoder.…`, and may be loaded
from one that names it as `text_decoder.bert.…` too. `PretrainNetwork.shared()` lists these names.

The queues are no part of the network: they are a `FeatureQueue`, whose state dict carries the
original's names (`image_queue`, `text_queue`, `queue_ptr`) and a count of valid places.

Shapes: B pairs of image and text, W pairs of all workers, T tokens, P image states, V their width,
M candidates (the batch, then the queue).
"""

from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BlipConfig

from models.blip.networks import Answering
from models.blip.text import TextDecoder
from models.training import losses, negatives
from models.training.captioning import language_loss
from models.training.config import Rule
from models.training.contrast import (
    ContrastiveOutput,
    ContrastiveSettings,
    ContrastNetwork,
    MatchResult,
    Pairs,
)
from models.training.momentum import FeatureQueue
from models.training.workers import ALONE, Workers

_ENCODER, _DECODER = "text_encoder.", "text_decoder.bert."


@dataclass(frozen=True, slots=True)
class StepSettings(ContrastiveSettings):
    """How a step computes.

    `dec_id`: first token of LM; `negatives`, of ITM: `masked` draws no text of the same image and
    no equal text, out of the batches of all workers, which ITC contrasts, too; `original` knows
    neither ids nor other workers. `floor`: what `masked` adds to each candidate's weight. `prompt`:
    ids that go before each text for LM, which does not learn them.
    """

    dec_id: int
    _: KW_ONLY
    negatives: Rule = "masked"
    floor: float = 0.0
    prompt: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StepResult(MatchResult):
    """The losses of a step and what they came from."""

    lm: Tensor

    @property
    def total(self) -> Tensor:
        """What training minimises: the plain sum (BLIP §3.2)."""
        return self.itc + self.itm + self.lm


class PretrainNetwork(ContrastNetwork, Answering):
    """The whole of BLIP in pre-training; the original's own layout, under transformers' names.

    It answers questions, too, where texts are as wide as images: the decoder then looks at either.
    """

    def __init__(self, config: BlipConfig) -> None:
        super().__init__(config)
        self.text_decoder = TextDecoder(config.text_config)
        decoder = self.text_decoder.bert
        decoder.embeddings = self.text_encoder.embeddings
        layers = zip(decoder.encoder.layers(), self.text_encoder.encoder.layers(), strict=True)
        for layer, shared in layers:  # self-attention alone differs (BLIP §3.2, Table 3)
            layer.crossattention = shared.crossattention
            layer.intermediate, layer.output = shared.intermediate, shared.output
        self.register_state_dict_post_hook(_name_once)
        self.register_load_state_dict_pre_hook(_name_twice)

    def shared(self) -> dict[str, str]:
        """Map each second name of a shared tensor (the decoder's) to its first (the encoder's)."""
        found = {}
        for name, _ in self.text_encoder.named_parameters():
            if ".attention." not in name:
                found[_DECODER + name] = _ENCODER + name
        return found

    def forward(
        self,
        batch: Pairs,
        queue: FeatureQueue,
        settings: StepSettings,
        generator: torch.Generator,
        *,
        workers: Workers = ALONE,
        fixed_negatives: tuple[Tensor, Tensor] | None = None,
    ) -> StepResult:
        """Compute the three losses of a batch, and renew the momentum copies and the queue.

        Where the queue knows ids and hashes, ITC leaves equal pictures and equal texts out; without
        them it contrasts all pairs but the own, as the original does.
        `fixed_negatives`: indices (B,) of each text's wrong image and each image's wrong text among
        the pairs that negatives come from, which are otherwise drawn.
        """
        everyone = workers if settings.negatives == "masked" else ALONE
        pairs = everyone.size * len(batch.ids)
        paired = losses.own_pairs(len(batch.ids), pairs, everyone.rank, batch.ids.device)
        contrast = self.contrast(
            batch,
            queue,
            F.pad(paired.float(), (0, queue.size)),  # what the queue holds is of other pairs
            settings,
            workers=workers,
            everyone=everyone,
            left_out=_equal(batch, queue, paired, everyone),
        )
        weights = _weights(contrast, batch, paired, settings, everyone)
        wrong = negatives.draw_both(weights, generator, everyone, fixed_negatives)
        ids, states = batch.with_first_token(settings.enc_id), contrast.states
        words, mask = batch.with_prompt(settings.dec_id, settings.prompt)
        # made once for ITM and LM: encoder and decoder share their cross-attentions
        cross_kv = self.text_encoder.project_images(states)
        itm = self.match(ids, batch.mask, states, cross_kv, wrong, workers)
        prompt = len(settings.prompt)
        lm = language_loss(self.text_decoder, words, mask, cross_kv, prompt=prompt, workers=workers)
        return StepResult(contrast.loss, itm, self.temp.detach().clone(), wrong, lm)


def _equal(batch: Pairs, queue: FeatureQueue, paired: Tensor, everyone: Workers) -> Tensor | None:
    """Mark ITC's candidates (B, M) of the same image or with the same text, but the own pair."""
    ids, hashes = batch.image_ids, batch.text_hashes
    if queue.idx_queue is None or queue.hash_queue is None:
        return None
    if ids is None or hashes is None:
        raise ValueError("a queue with ids and hashes needs those of the batch")
    other_ids = torch.cat([everyone.gather(ids), queue.idx_queue[0]])
    other_hashes = torch.cat([everyone.gather(hashes), queue.hash_queue[0]])
    return negatives.matched(ids, other_ids, hashes, other_hashes) & ~F.pad(paired, (0, queue.size))


def _weights(
    contrast: ContrastiveOutput,
    batch: Pairs,
    paired: Tensor,
    settings: StepSettings,
    everyone: Workers,
) -> tuple[Tensor, Tensor]:
    """Weigh all images for each text, and all texts for each image: logarithms (B, W)."""
    size = paired.shape[1]  # the queue's places have no states, so that ITM cannot read them
    to_images, to_texts = contrast.text_to_image[:, :size], contrast.image_to_text[:, :size]
    if settings.negatives == "original":
        return negatives.original_weights(to_images), negatives.original_weights(to_texts)
    same = paired
    for numbers in (batch.image_ids, batch.text_hashes):
        if numbers is not None:
            same = same | negatives.matched(numbers, everyone.gather(numbers))
    masked, floor = negatives.masked_weights, settings.floor
    return masked(to_images, same, floor), masked(to_texts, same, floor)


def _name_once(network: nn.Module, state: dict[str, Any], prefix: str, _: object) -> None:
    assert isinstance(network, PretrainNetwork)
    for second in network.shared():
        del state[prefix + second]


def _name_twice(network: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    assert isinstance(network, PretrainNetwork)
    for second, first in network.shared().items():
        if prefix + first in state:
            state.setdefault(prefix + second, state[prefix + first])
