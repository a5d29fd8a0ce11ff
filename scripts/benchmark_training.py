"""Samples a second of pre-training, beside the same losses written on transformers' modules.

Both compute all of BLIP's step on the same random pictures and texts of 8 to 16 words: ITC with
momentum copies, queue and soft targets, ITM with hard negatives, LM, AdamW. `original` pads texts
to 30 tokens, as BLIP's code does, `longest` as far as the batch needs. Steps alternate.
"""

import copy
import os
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BlipConfig, BlipForConditionalGeneration, BlipForImageTextRetrieval

from models.config import blip_config
from models.contrast import Pairs
from models.momentum import FeatureQueue
from models.pretraining import PretrainNetwork, StepSettings

BATCH, SIDE, ROUNDS = 8, 224, 3
WORDS, QUEUE, ALPHA, MOMENTUM, LONGEST = 30_524, 57_600, 0.4, 0.995, 30
Case = tuple[torch.optim.Optimizer, Callable[[], Tensor]]


class Theirs(nn.Module):
    """BLIP's pre-training out of transformers' towers; nothing is shared, as there."""

    def __init__(self, config: BlipConfig) -> None:
        super().__init__()
        matcher, width = BlipForImageTextRetrieval(config), config.image_text_hidden_size
        self.online = nn.ModuleList([matcher.vision_model, matcher.vision_proj])
        self.online.extend([matcher.text_encoder, matcher.text_proj])
        self.itm_head = matcher.itm_head
        self.decoder = BlipForConditionalGeneration(config).text_decoder
        self.copies = copy.deepcopy(self.online).requires_grad_(False)
        self.temp = nn.Parameter(torch.tensor(0.07))
        self.queues = [F.normalize(torch.randn(QUEUE, width), dim=1) for _ in range(2)]

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Compute the sum of the three losses, and renew copies and queues."""
        own = torch.arange(len(ids))
        states, images, texts = features(self.online, pixels, ids, mask)
        with torch.no_grad():
            both = zip(self.copies.parameters(), self.online.parameters(), strict=True)
            for copied, leader in both:
                copied.data = copied.data * MOMENTUM + leader.data * (1 - MOMENTUM)
            _, images_m, texts_m = features(self.copies, pixels, ids, mask)
        itc = self.contrast(images, images_m, torch.cat([texts_m, self.queues[1]]).T)
        itc = itc + self.contrast(texts, texts_m, torch.cat([images_m, self.queues[0]]).T)
        with torch.no_grad():
            similar = ((images @ texts.T / self.temp).softmax(1) + 1e-4).fill_diagonal_(0)
            image_of = torch.multinomial(similar.T, 1).flatten()
            text_of = torch.multinomial(similar, 1).flatten()
            for queue, fresh in zip(self.queues, (images_m, texts_m), strict=True):
                queue[: len(own)] = fresh
        picked, said = torch.cat([own, image_of, own]), torch.cat([own, own, text_of])
        hidden = self.online[2](ids[said], mask[said], encoder_hidden_states=states[picked])
        logits = self.itm_head(hidden.last_hidden_state[:, 0])
        itm = F.cross_entropy(logits, (picked == said).long())
        labels = ids.masked_fill(mask == 0, -100)[:, 1:]
        spoken = self.decoder(ids, mask, encoder_hidden_states=states).logits[:, :-1]
        return itc / 2 + itm + F.cross_entropy(spoken.mT, labels, label_smoothing=0.1)

    def contrast(self, features: Tensor, features_m: Tensor, everyone: Tensor) -> Tensor:
        """Compute ITC in one direction, with soft targets."""
        soft = ALPHA * (features_m @ everyone / self.temp).softmax(1).detach()
        soft[:, : len(soft)] += (1 - ALPHA) * torch.eye(len(soft))
        return -(soft * (features @ everyone / self.temp).log_softmax(1)).sum(1).mean()


def features(
    towers: nn.ModuleList, pixels: Tensor, ids: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Run vision tower, its head, text encoder and its head."""
    states = towers[0](pixels).last_hidden_state
    words = towers[2](ids, mask).last_hidden_state
    images, texts = towers[1](states[:, 0]), towers[3](words[:, 0])
    return states, F.normalize(images, dim=-1), F.normalize(texts, dim=-1)


def main() -> None:
    """Time the steps of each case in turn."""
    torch.manual_seed(0)
    config = blip_config("base", vocab_size=WORDS, sep_id=102, pad_id=0, image_size=SIDE)
    pixels, lengths = torch.randn(BATCH, 3, SIDE, SIDE), torch.randint(10, 19, (BATCH, 1))
    mask = torch.arange(LONGEST) < lengths
    ids = torch.randint(999, 30_000, (BATCH, LONGEST)).masked_fill(~mask, 0)
    ours, theirs = PretrainNetwork(config), Theirs(config)
    for name, parameter in [*ours.named_parameters(), *theirs.named_parameters()]:
        if "norm" not in name.lower() and name != "temp":
            nn.init.normal_(parameter, std=0.02)
    queue, settings = FeatureQueue(256, QUEUE), StepSettings(WORDS - 1, WORDS - 2)
    cut = int(lengths.max())
    batch, dice = Pairs(pixels, ids[:, :cut], mask[:, :cut]), torch.Generator()
    first, second = (torch.optim.AdamW(n.parameters(), 1e-6) for n in (ours, theirs))
    cases: dict[str, Case] = {
        "capfilt": (first, lambda: ours(batch, queue, settings, dice).total),
        "original": (second, lambda: theirs(pixels, ids, mask.long())),
        "longest": (second, lambda: theirs(pixels, batch.ids, batch.mask.long())),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for name in [*cases] * (ROUNDS + 1):
        optimiser, loss = cases[name]
        began = time.perf_counter()
        loss().backward()
        optimiser.step()
        optimiser.zero_grad()
        times[name].append(time.perf_counter() - began)
    took = {name: median(found[1:]) for name, found in times.items()}  # the first warms up
    print(f"base, batch {BATCH}, {SIDE} px, fp32, {os.cpu_count()} cores")
    for name, seconds in took.items():
        print(f"{name:10} {BATCH / seconds:6.2f} samples/s, 1 : {seconds / took['capfilt']:.2f}")


if __name__ == "__main__":
    main()
