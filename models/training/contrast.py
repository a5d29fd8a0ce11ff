"""A match network in training: its momentum copies, ITC and ITM (BLIP §3.2).

Features and losses are in fp32 also where the towers run under autocast.

Shapes: B pairs of image and text, W pairs of all workers, T tokens, P image states, V their width,
E projection width, Q places of the queue, M candidates: the batch (B, or W where all workers' pairs
are contrasted), then the queue.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BlipConfig

from models.blip.networks import MatchNetwork
from models.blip.text import KeyValue, TextTransformer
from models.blip.vision import VisionTower
from models.training import losses, momentum
from models.training.momentum import FeatureQueue
from models.training.negatives import Negatives
from models.training.workers import ALONE, Workers

TEMPERATURE = 0.07  # where training starts
TEMPERATURES = (0.001, 0.5)  # what it is held in


@dataclass(frozen=True, slots=True)
class Pairs:
    """A batch of images, each with one text.

    `pixels` (B, 3, S, S), normalised; `ids` (B, T), which begin with [CLS], padded at the end;
    `mask` (B, T), True on tokens; `image_ids` and `text_hashes` (B,): equal numbers are the same
    image, or the same text.
    """

    pixels: Tensor
    ids: Tensor
    mask: Tensor
    image_ids: Tensor | None = None
    text_hashes: Tensor | None = None

    def with_first_token(self, token: int) -> Tensor:
        """Copy the ids with another first token."""
        return torch.cat([torch.full_like(self.ids[:, :1], token), self.ids[:, 1:]], dim=1)

    def with_prompt(self, token: int, prompt: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Copy ids and mask with another first token and a prompt after it."""
        start = self.ids.new_tensor([token, *prompt]).expand(len(self.ids), -1)
        shown = torch.ones_like(start, dtype=torch.bool)
        return torch.cat([start, self.ids[:, 1:]], 1), torch.cat([shown, self.mask[:, 1:]], 1)


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
        *,
        alpha: float,
        rate: float,
        workers: Workers = ALONE,
        everyone: Workers = ALONE,
    ) -> ContrastiveOutput:
        """Compute ITC with momentum distillation, and renew the momentum copies and the queue.

        `targets` (B, M); `alpha`: share of the soft targets; `rate`: momentum of the copies. The
        queue takes the features of all `workers`; candidates beside it are those of `everyone`.
        """
        with torch.no_grad():
            self.temp.clamp_(*TEMPERATURES)
        states = self.vision_model(batch.pixels)
        images = project_and_normalize(self.vision_proj, states)
        texts = project_and_normalize(
            self.text_proj, self.text_encoder.encode(batch.ids, batch.mask)
        )
        momentum.follow(self.copies(), rate)
        with torch.no_grad():
            images_m = project_and_normalize(self.vision_proj_m, self.vision_model_m(batch.pixels))
            texts_m = project_and_normalize(
                self.text_proj_m, self.text_encoder_m.encode(batch.ids, batch.mask)
            )
        with in_fp32(states):
            found_images, found_texts = everyone.gather(images_m), everyone.gather(texts_m)
            all_images = torch.cat([found_images, queue.image_queue.T])  # (M, E)
            all_texts = torch.cat([found_texts, queue.text_queue.T])
            valid = F.pad(queue.valid(), (len(found_images), 0), value=True)
            found, directions = [], ((images, images_m, all_texts), (texts, texts_m, all_images))
            for features, features_m, candidates in directions:
                with torch.no_grad():
                    soft = losses.similarities(features_m, candidates, self.temp)
                    soft = losses.soften(targets, soft, alpha, valid)
                logits = losses.similarities(features, candidates, self.temp)
                found.append((logits, losses.contrastive(logits, soft, valid)))
        (image_to_text, first), (text_to_image, second) = found
        ids = None if queue.idx_queue is None else batch.image_ids
        numbers = None if ids is None else workers.gather(ids)
        queue.enqueue(workers.gather(images_m), workers.gather(texts_m), numbers)
        loss = (first + second) / 2
        return ContrastiveOutput(loss, states, images, texts, image_to_text, text_to_image)

    def cross_kv_of(
        self, cross_kv: list[KeyValue], states: Tensor, chosen: Negatives, everyone: Workers
    ) -> list[KeyValue]:
        """Give the projections of chosen images; one worker has made those of all images before.

        `cross_kv` are those of its own images, whose states are (B, P, V).
        """
        if everyone.size > 1:
            return self.text_encoder.project_images(
                everyone.gather_with_gradient(states)[chosen.index]
            )
        return [KeyValue(key[chosen.index], value[chosen.index]) for key, value in cross_kv]

    def match(
        self,
        cross_kv: list[KeyValue],
        ids: Tensor,
        mask: Tensor,
        negative_images: tuple[list[KeyValue], Negatives],
        negative_texts: tuple[Tensor, Tensor, Negatives],
        workers: Workers = ALONE,
        extra_neg_texts: tuple[Tensor, Tensor, Negatives] | None = None,
    ) -> Tensor:
        """Compute ITM: each pair as it is, each text with a wrong image, each image with a wrong
        text (ALBEF §3.2: 1 : 2).

        `cross_kv` are keys and values of the images, `ids` (B, T) begin with [ENC]. Each text's
        wrong image comes with its own. Wrong texts are indices into the ids and masks (W, T) that
        come with them. `extra_neg_texts` are a second wrong text of each image, of equal length.
        """
        other_cross_kv, wrong_image = negative_images
        wrong = [negative_texts] if extra_neg_texts is None else [negative_texts, extra_neg_texts]
        # right and wrong texts of an image stand side by side: they share its projections
        both = [ids, *(others[chosen.index] for others, _, chosen in wrong)]
        masks = [mask, *(others[chosen.index] for _, others, chosen in wrong)]
        rows = torch.stack(both, dim=1).flatten(0, 1), torch.stack(masks, dim=1).flatten(0, 1)
        own_images = self.text_encoder.encode(*rows, cross_kv)[:, 0].unflatten(0, (-1, len(both)))
        neg_images = self.text_encoder.encode(ids, mask, other_cross_kv)[:, 0]
        hidden = torch.cat([own_images[:, 0], neg_images, *own_images[:, 1:].unbind(1)]).float()
        right = torch.ones_like(wrong_image.found)
        labels = torch.cat([right, ~right, *(~right for _ in wrong)]).long()
        found = [chosen.found for _, _, chosen in wrong]
        counted = torch.cat([right, wrong_image.found, *found]).float()
        with in_fp32(hidden):
            logits = F.linear(hidden, self.itm_head.weight.float(), self.itm_head.bias.float())
            return losses.matching(logits, labels, counted, workers.mean(counted.sum()))


def project_and_normalize(head: nn.Linear, states: Tensor) -> Tensor:
    """Project the first of the states (B, P, V) to unit vectors in fp32 (B, E)."""
    with in_fp32(states):
        projected = F.linear(states[:, 0].float(), head.weight.float(), head.bias.float())
        return F.normalize(projected, dim=-1)


def in_fp32(like: Tensor) -> torch.autocast:
    """Suspend autocast on a tensor's device."""
    return torch.autocast(like.device.type, enabled=False)
