"""The pre-training network and its step: ITC, ITM and LM together (BLIP §3.2).

`text_decoder.bert` shares whole submodules with `text_encoder`: all but each layer's `attention`
(§3.2, Table 3). A state dict names a shared tensor once, as `text_encoder.…`, and may be loaded
from one that names it as `text_decoder.bert.…` too. `PretrainNetwork.shared()` lists these names.

The queues are no part of the network: they are a `FeatureQueue`, whose state dict carries the
original's names (`image_queue`, `text_queue`, `queue_ptr`) and a count of valid places.

Shapes: B pairs of image and text, W pairs of all workers, T tokens, P image states, V their width,
M candidates (the batch, then the queue).
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BlipConfig

from models.blip.networks import Answering
from models.blip.text import TextDecoder
from models.training import losses, negatives
from models.training.captioning import language_loss
from models.training.contrast import ContrastiveOutput, ContrastNetwork, Pairs
from models.training.momentum import FeatureQueue
from models.training.negatives import Negatives, Rule
from models.training.workers import ALONE, Workers

_ENCODER, _DECODER = "text_encoder.", "text_decoder.bert."


@dataclass(frozen=True, slots=True)
class StepSettings:
    """How a step computes; the defaults are the paper's (BLIP §4.1, ALBEF §3.5).

    `enc_id`, `dec_id`: first tokens of ITM and LM; `alpha`: share of the soft targets in ITC;
    `momentum`: of the copies; `negatives`: `masked` draws no text of the same image and no equal
    text, out of the batches of all workers, which ITC contrasts, too; `original` knows neither
    ids nor other workers. `prompt`: ids that go before each text for LM, which does not learn them.
    """

    enc_id: int
    dec_id: int
    alpha: float = 0.4
    momentum: float = 0.995
    negatives: Rule = "masked"
    prompt: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StepResult:
    """The losses of a step and what they came from.

    `image_weights` and `text_weights` (B, W): logarithms of the weights by which each text's wrong
    image and each image's wrong text were drawn.
    """

    itc: Tensor
    itm: Tensor
    lm: Tensor
    temperature: Tensor
    image_weights: Tensor
    text_weights: Tensor
    wrong_image: Negatives
    wrong_text: Negatives

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
        for own, shared in layers:
            own.crossattention = shared.crossattention
            own.intermediate, own.output = shared.intermediate, shared.output
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
        given: tuple[Tensor, Tensor] | None = None,
    ) -> StepResult:
        """Compute the three losses of a batch, and renew the momentum copies and the queue.

        `given`: indices (B,) of each text's wrong image and each image's wrong text among the
        pairs that negatives come from, which are otherwise drawn.
        """
        everyone = workers if settings.negatives == "masked" else ALONE
        pairs = everyone.size * len(batch.ids)
        own = losses.own_pairs(len(batch.ids), pairs, everyone.rank, batch.ids.device)
        contrast = self.contrast(
            batch,
            queue,
            F.pad(own.float(), (0, queue.size)),
            alpha=settings.alpha,
            rate=settings.momentum,
            workers=workers,
            everyone=everyone,
        )
        image_weights, text_weights = _weights(contrast, batch, own, settings.negatives, everyone)
        if given is None:
            wrong_image = negatives.draw(image_weights, generator, everyone)
            wrong_text = negatives.draw(text_weights, generator, everyone)
        else:
            wrong_image, wrong_text = map(Negatives.given, given)
        states = contrast.states
        ids = batch.with_first_token(settings.enc_id)
        words, mask = batch.with_prompt(settings.dec_id, settings.prompt)
        prompt = len(settings.prompt)
        cross_kv = self.text_encoder.project_images(states)  # the decoder shares what makes them
        itm = self.match(
            cross_kv,
            ids,
            batch.mask,
            (self.cross_kv_of(cross_kv, states, wrong_image, everyone), wrong_image),
            (everyone.gather(ids), everyone.gather(batch.mask), wrong_text),
            workers,
        )
        return StepResult(
            itc=contrast.loss,
            itm=itm,
            lm=language_loss(
                self.text_decoder, words, mask, cross_kv, prompt=prompt, workers=workers
            ),
            temperature=self.temp.detach().clone(),
            image_weights=image_weights,
            text_weights=text_weights,
            wrong_image=wrong_image,
            wrong_text=wrong_text,
        )


def _weights(
    contrast: ContrastiveOutput, batch: Pairs, own: Tensor, rule: Rule, everyone: Workers
) -> tuple[Tensor, Tensor]:
    """Weigh all images for each text, and all texts for each image: logarithms (B, W)."""
    size = own.shape[1]
    found = (contrast.text_to_image[:, :size], contrast.image_to_text[:, :size])
    if rule == "original":
        return negatives.original_weights(found[0]), negatives.original_weights(found[1])
    same = own
    for numbers in (batch.image_ids, batch.text_hashes):
        if numbers is not None:
            same = same | negatives.matched(numbers, everyone.gather(numbers))
    return negatives.masked_weights(found[0], same), negatives.masked_weights(found[1], same)


def _name_once(network: nn.Module, state: dict[str, Any], prefix: str, _: object) -> None:
    assert isinstance(network, PretrainNetwork)
    for second in network.shared():
        del state[prefix + second]


def _name_twice(network: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    assert isinstance(network, PretrainNetwork)
    for second, first in network.shared().items():
        if prefix + first in state:
            state.setdefault(prefix + second, state[prefix + first])
