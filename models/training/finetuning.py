"""Finetuning for retrieval: ITC and ITM where an image has several texts (BLIP §5.1).

Shapes: B pairs of image and text, W pairs of all workers.
"""

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from models.training import losses, negatives
from models.training.config import Across
from models.training.contrast import (
    ContrastiveOutput,
    ContrastiveSettings,
    ContrastNetwork,
    MatchResult,
    Pairs,
    in_fp32,
    project_and_normalize,
    replace_first,
)
from models.training.momentum import FeatureQueue
from models.training.negatives import Negatives
from models.training.workers import ALONE, Workers


@dataclass(frozen=True, slots=True)
class RetrievalSettings(ContrastiveSettings):
    """How a step computes.

    `across`: what comes from the batches of all workers, the negatives of ITM (as the original
    trains on COCO), the candidates of ITC too, or nothing (as on Flickr30k).
    """

    _: KW_ONLY
    across: Across = "everything"


@dataclass(frozen=True, slots=True)
class NegativeCaptions:
    """What a captioner wrote of a batch's images: more wrong texts, of the kind it will write.

    `ids` (B, T) begin with [CLS], as long as the batch's own; `wrong` (B,): the caption is wrong
    of its own image, as far as is known.
    """

    ids: Tensor
    mask: Tensor
    wrong: Tensor


class RetrievalNetwork(ContrastNetwork):
    """A match network in finetuning, where an image has several texts."""

    def forward(
        self,
        batch: Pairs,
        queue: FeatureQueue,
        settings: RetrievalSettings,
        generator: torch.Generator,
        *,
        workers: Workers = ALONE,
        fixed_negatives: tuple[Tensor, Tensor] | None = None,
        captions: NegativeCaptions | None = None,
    ) -> MatchResult:
        """Compute ITC and ITM of a batch, and renew the momentum copies and the queue.

        The queue keeps image ids; texts of one image, and equal ones, are never each other's
        negatives. `fixed_negatives`: indices (B,) of each text's wrong image and each image's
        wrong text among the pairs that negatives come from, which are otherwise drawn. With
        `captions` each image gets one more wrong text: its own caption if that is wrong, or else
        another image's.
        """
        image_ids = batch.image_ids
        if image_ids is None or queue.idx_queue is None:
            raise ValueError("retrieval needs the image ids of the batch, and a queue with ids")
        everyone = workers if settings.across == "everything" else ALONE
        # another caption of the same image is as right as its own, in the queue, too (BLIP §5.1)
        candidates = torch.cat([everyone.gather(image_ids), queue.idx_queue[0]])
        contrast = self.contrast(
            batch,
            queue,
            losses.same_image(image_ids, candidates),
            settings,
            workers=workers,
            everyone=everyone,
        )
        others = ALONE if settings.across == "nothing" else workers
        weights = self._weights(contrast, image_ids, batch.text_hashes, others)
        wrong = negatives.draw_both(weights, generator, others, fixed_negatives)
        ids, states = batch.with_first_token(settings.enc_id), contrast.states
        cross_kv = self.text_encoder.project_images(states)
        more = None
        if captions is not None:
            more = self._wrong_captions(contrast, image_ids, captions, settings, generator)
        itm = self.match(ids, batch.mask, states, cross_kv, wrong, workers, more)
        return MatchResult(contrast.loss, itm, self.temp.detach().clone(), wrong)

    def _wrong_captions(
        self,
        contrast: ContrastiveOutput,
        image_ids: Tensor,
        captions: NegativeCaptions,
        settings: RetrievalSettings,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Negatives]:
        """Choose a caption that is wrong of each image: those that look right are likelier."""
        with torch.no_grad():
            written = self.text_encoder.encode(captions.ids, captions.mask)
            features = project_and_normalize(self.text_proj, written)
            with in_fp32(features):
                alike = losses.similarities(contrast.images, features, self.temp)
            forbidden = negatives.matched(image_ids, image_ids)
            drawn = negatives.draw(negatives.masked_weights(alike, forbidden), generator)
        # its own caption is the hardest: it is of this image, and says what is not there
        rows = torch.arange(len(alike), device=alike.device)
        index = torch.where(captions.wrong, rows, drawn.index)
        ids = replace_first(captions.ids, settings.enc_id)
        return ids, captions.mask, Negatives(index, captions.wrong | drawn.valid)

    def _weights(
        self,
        contrast: ContrastiveOutput,
        ids: Tensor,
        hashes: Tensor | None,
        others: Workers,
    ) -> tuple[Tensor, Tensor]:
        """Weigh all images for each text, and all texts for each image: logarithms (B, W)."""
        # by online features, as the original's finetuning does (pre-training takes ITC's logits);
        # the queue has none of the states that ITM would read
        texts, images = contrast.texts.detach(), contrast.images.detach()
        equal = (None, None) if hashes is None else (hashes, others.gather(hashes))
        forbidden = negatives.matched(ids, others.gather(ids), *equal)
        with in_fp32(texts):
            to_images = losses.similarities(texts, others.gather(images), self.temp)
            to_texts = losses.similarities(images, others.gather(texts), self.temp)
        masked = negatives.masked_weights
        return masked(to_images, forbidden), masked(to_texts, forbidden)
