"""A match network in training: its momentum copies, ITC and ITM (BLIP §3.2).

Features and losses are in fp32 also where the towers run under autocast.

Shapes: B pairs of image and text, W pairs of all workers, T tokens, P image states, V their width,
E projection width, Q places of the queue, M candidates: the batch (B, or W where all workers' pairs
are contrasted), then the queue.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BlipConfig

from models.blip.networks import MatchNetwork, linear_fp32
from models.blip.text import TextTransformer
from models.blip.text_layers import KeyValue
from models.blip.vision import VisionTower
from models.training import losses, momentum
from models.training.momentum import FeatureQueue
from models.training.negatives import DrawnNegatives, Negatives
from models.training.workers import ALONE, Workers

TEMPERATURE = 0.07  # where training starts
TEMPERATURES = (0.001, 0.5)  # what it is held in


@dataclass(frozen=True, slots=True)
class Pairs:
    """A batch of images, each with one text.

    `pixels` (B, 3, S, S), normalised; `ids` (B, T), which begin with [CLS], padded at the end;
    `mask` (B, T), True on tokens; `image_ids` and `text_hashes` (B,): equal numbers are the same
    image, or the same text. `learned`: places of the flat mask (B * (T - 1),) without its first
    column that are tokens, so that LM need not wait to learn from a GPU how many there are.
    """

    pixels: Tensor
    ids: Tensor
    mask: Tensor
    image_ids: Tensor | None = None
    text_hashes: Tensor | None = None
    learned: Tensor | None = None

    def with_first_token(self, token: int) -> Tensor:
        """Copy the ids with another first token."""
        return replace_first(self.ids, token)

    def with_prompt(self, token: int, prompt: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Copy ids and mask with another first token and a prompt after it."""
        # filled in one by one: a tensor made of a list would be waited for on a GPU
        start = torch.cat([torch.full_like(self.ids[:, :1], n) for n in (token, *prompt)], 1)
        shown = torch.ones_like(start, dtype=torch.bool)
        return torch.cat([start, self.ids[:, 1:]], 1), torch.cat([shown, self.mask[:, 1:]], 1)


@dataclass(frozen=True, slots=True)
class ContrastiveSettings:
    """How a step of ITC and ITM computes; the defaults are the paper's (ALBEF §3.5).

    `enc_id`: first token of ITM; `alpha`: share of the soft targets in ITC; `momentum`: of the
    copies.
    """

    enc_id: int
    _: KW_ONLY
    alpha: float = 0.4
    momentum: float = 0.995


@dataclass(frozen=True, slots=True)
class ContrastiveOutput:
    """What ITC computed: its loss, and what the other losses use again.

    `states` (B, P, V); features of images and texts (B, E); similarities (B, M) of the online
    features to the momentum features of the batch and the queue.
    """

    loss: Tensor
    states: Tensor
    images: Tensor
    texts: Tensor
    image_to_text: Tensor
    text_to_image: Tensor


@dataclass(frozen=True, slots=True)
class MatchResult:
    """The losses of a step, ITC's temperature, and the wrong pairs that ITM judged."""

    itc: Tensor
    itm: Tensor
    temperature: Tensor
    negatives: DrawnNegatives

    @property
    def total(self) -> Tensor:
        """What training minimises: the plain sum (BLIP §3.2)."""
        return self.itc + self.itm


class ContrastNetwork(MatchNetwork):
    """A match network with a temperature and momentum copies (`…_m`), as ITC trains it."""

    def __init__(self, config: BlipConfig) -> None:
        super().__init__(config)
        shared = config.image_text_hidden_size
        self.temp = nn.Parameter(torch.tensor(TEMPERATURE))
        self.vision_model_m = VisionTower(config.vision_config)
        self.vision_proj_m = nn.Linear(config.vision_config.hidden_size, shared)
        self.text_encoder_m = TextTransformer(config.text_config)
        self.text_proj_m = nn.Linear(config.text_config.hidden_size, shared)
        for _, copy in self.copies():
            copy.requires_grad_(False)

    @torch.no_grad()
    def start(self) -> None:
        """Set what training starts from: the temperature, and copies equal to their modules."""
        self.temp.fill_(TEMPERATURE)
        momentum.restart(self.copies())

    def copies(self) -> list[tuple[nn.Module, nn.Module]]:
        """List the modules with a momentum copy, each with its copy."""
        return [
            (self.vision_model, self.vision_model_m),
            (self.vision_proj, self.vision_proj_m),
            (self.text_encoder, self.text_encoder_m),
            (self.text_proj, self.text_proj_m),
        ]

    def contrast(
        self,
        batch: Pairs,
        queue: FeatureQueue,
        targets: Tensor,
        settings: ContrastiveSettings,
        *,
        workers: Workers = ALONE,
        everyone: Workers = ALONE,
        left_out: Tensor | None = None,
    ) -> ContrastiveOutput:
        """Compute ITC with momentum distillation, and renew the momentum copies and the queue.

        `targets` (B, M). The queue takes the features of all `workers`; candidates beside it are
        those of `everyone`, but for those that a row has `left_out` (B, M).
        """
        with torch.no_grad():
            # it is learned: near 0 the losses would overflow, above one half nothing stands out
            self.temp.clamp_(*TEMPERATURES)
        states = self.vision_model(batch.pixels)
        images = project_and_normalize(self.vision_proj, states)
        encoded = self.text_encoder.encode(batch.ids, batch.mask)
        texts = project_and_normalize(self.text_proj, encoded)
        # the copies move first, so that their features are of the weights that this step is of
        momentum.follow(self.copies(), settings.momentum)
        images_m, texts_m = self._momentum_features(batch)
        with in_fp32(states):
            # candidates are the copies' features alone (MoCo): those in the queue are of earlier
            # steps, and stay comparable only because the copies move slowly
            batch_images, batch_texts = everyone.gather(images_m), everyone.gather(texts_m)
            all_images = torch.cat([batch_images, queue.image_queue.T])  # (M, E)
            all_texts = torch.cat([batch_texts, queue.text_queue.T])
            # a queue that is not full yet holds zeros: they are no candidates
            valid = F.pad(queue.valid(), (len(batch_images), 0), value=True)
            valid = valid if left_out is None else valid & ~left_out
            share = (self.temp, targets, settings.alpha, valid)
            image_to_text, image_loss = _compare(images, images_m, all_texts, *share)
            text_to_image, text_loss = _compare(texts, texts_m, all_images, *share)
        # after the losses: a pair must not meet itself twice among its own candidates
        _enqueue(queue, batch, images_m, texts_m, workers)
        loss = (image_loss + text_loss) / 2
        return ContrastiveOutput(loss, states, images, texts, image_to_text, text_to_image)

    @torch.no_grad()
    def _momentum_features(self, batch: Pairs) -> tuple[Tensor, Tensor]:
        images = project_and_normalize(self.vision_proj_m, self.vision_model_m(batch.pixels))
        encoded = self.text_encoder_m.encode(batch.ids, batch.mask)
        return images, project_and_normalize(self.text_proj_m, encoded)

    def match(
        self,
        ids: Tensor,
        mask: Tensor,
        states: Tensor,
        cross_kv: list[KeyValue],
        wrong: DrawnNegatives,
        workers: Workers = ALONE,
        extra_neg_texts: tuple[Tensor, Tensor, Negatives] | None = None,
    ) -> Tensor:
        """Compute ITM: each pair as it is, each text with a wrong image, each image with a wrong
        text (ALBEF §3.2: 1 : 2).

        `ids` (B, T) begin with [ENC]; `cross_kv` are the projections of `states` (B, P, V).
        `extra_neg_texts`, ids and mask of any rows of length T and which of them to take, are a
        second wrong text of each image.
        """
        neg_cross_kv, others = self._negative_cross_kv(cross_kv, states, wrong), wrong.workers
        neg_texts = [(others.gather(ids), others.gather(mask), wrong.texts)]
        neg_texts += [] if extra_neg_texts is None else [extra_neg_texts]
        # right and wrong texts of an image stand side by side: they share its projections
        all_ids = torch.stack([ids, *(rows[drawn.index] for rows, _, drawn in neg_texts)], dim=1)
        masks = torch.stack([mask, *(rows[drawn.index] for _, rows, drawn in neg_texts)], dim=1)
        rows = all_ids.flatten(0, 1), masks.flatten(0, 1)
        own_images = self.text_encoder.encode(*rows, cross_kv)[:, 0].unflatten(
            0, (-1, 1 + len(neg_texts))
        )
        neg_images = self.text_encoder.encode(ids, mask, neg_cross_kv)[:, 0]
        hidden = torch.cat([own_images[:, 0], neg_images, *own_images[:, 1:].unbind(1)]).float()
        valid = [wrong.images.valid, *(drawn.valid for _, _, drawn in neg_texts)]
        right = torch.ones_like(wrong.images.valid)
        labels = torch.cat([right, *(~right for _ in valid)]).long()
        # a row without any negative has a pair that is none: it must not count
        counted = torch.cat([right, *valid]).float()
        with in_fp32(hidden):
            logits = linear_fp32(self.itm_head, hidden)
            return losses.matching(logits, labels, counted, workers.mean(counted.sum()))

    def _negative_cross_kv(
        self, cross_kv: list[KeyValue], states: Tensor, wrong: DrawnNegatives
    ) -> list[KeyValue]:
        """Take the projections of each text's wrong image."""
        index = wrong.images.index
        if wrong.workers.size == 1:  # they are among those that were made already
            return [KeyValue(key[index], value[index]) for key, value in cross_kv]
        # gradients must reach the tower of the worker that saw the image
        return self.text_encoder.project_images(wrong.workers.take(states, index))


def _enqueue(
    queue: FeatureQueue, batch: Pairs, images: Tensor, texts: Tensor, workers: Workers
) -> None:
    """Let the features of all workers wait, with the numbers that the queue keeps."""
    ids = None if queue.idx_queue is None else batch.image_ids
    hashes = None if queue.hash_queue is None else batch.text_hashes
    numbers = (None if given is None else workers.gather(given) for given in (ids, hashes))
    queue.enqueue(workers.gather(images), workers.gather(texts), *numbers)


def _compare(
    features: Tensor,
    features_m: Tensor,
    candidates: Tensor,
    temperature: Tensor,
    targets: Tensor,
    alpha: float,
    valid: Tensor,
) -> tuple[Tensor, Tensor]:
    """Compute similarities (B, M) and the loss of one direction (ALBEF §3.2, §3.3)."""
    with torch.no_grad():
        # pairs from the web are noisy, and another candidate may fit as well: what the copies
        # find alike is no mistake (ALBEF §3.3, eq. 6)
        soft = losses.similarities(features_m, candidates, temperature)
        soft = losses.soften(targets, soft, alpha, valid)
    logits = losses.similarities(features, candidates, temperature)
    return logits, losses.contrastive(logits, soft, valid)


def replace_first(ids: Tensor, token: int) -> Tensor:
    """Copy ids (B, T) with another first token."""
    return torch.cat([torch.full_like(ids[:, :1], token), ids[:, 1:]], dim=1)


def project_and_normalize(head: nn.Linear, states: Tensor) -> Tensor:
    """Project the first of the states (B, P, V) to unit vectors in fp32 (B, E)."""
    with in_fp32(states):
        return F.normalize(linear_fp32(head, states[:, 0]), dim=-1)


def in_fp32(like: Tensor) -> torch.autocast:
    """Suspend autocast on a tensor's device."""
    return torch.autocast(like.device.type, enabled=False)
