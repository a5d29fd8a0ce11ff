"""Time and memory of pre-training's step at base size, beside the same on transformers' towers.

A process for each case, on random weights, pictures and texts of 8 to 16 words. `original` computes
what `capfilt` does, on towers of which none are shared, with texts padded to 30 tokens as in BLIP's
code; `longest` pads as far as the batch needs. `recomputed` keeps no activations; `lm` is LM alone.
"""

import copy
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn
from transformers import BlipForConditionalGeneration, BlipForImageTextRetrieval

from models.blip.config import blip_config
from models.blip.networks import CaptionNetwork
from models.training.captioning import language_loss
from models.training.contrast import Pairs
from models.training.losses import contrastive, similarities, soften
from models.training.momentum import FeatureQueue, follow
from models.training.pretraining import PretrainNetwork, StepSettings

BATCH, SIDE, QUEUE, WORDS = 8, 224, 57_600, 30_524
MATCHES = F.pad(torch.eye(BATCH), (0, QUEUE))
CONFIG = blip_config("base", vocab_size=WORDS, sep_id=102, pad_id=0, image_size=SIDE)
CASES = ("capfilt", "original", "longest", "recomputed", "capfilt lm", "transformers lm")


class Theirs(nn.Module):
    """BLIP's pre-training out of transformers' towers."""

    def __init__(self) -> None:
        super().__init__()
        m, lm = BlipForImageTextRetrieval(CONFIG), BlipForConditionalGeneration(CONFIG)
        self.online = nn.ModuleList([m.vision_model, m.vision_proj, m.text_encoder, m.text_proj])
        self.copies = copy.deepcopy(self.online).requires_grad_(False)
        self.itm_head, self.decoder = m.itm_head, lm.text_decoder
        self.temp = nn.Parameter(torch.tensor(0.07))
        self.queues = [F.normalize(torch.randn(QUEUE, 256)) for _ in range(2)]

    def forward(self, pairs: Pairs) -> Tensor:
        """Compute the sum of the three losses, and renew copies and queues."""
        ids, mask, rows = pairs.ids, pairs.mask.long(), torch.arange(BATCH)
        states, *units = features(self.online, pairs.pixels, ids, mask)
        with torch.no_grad():
            follow([(self.online, self.copies)], 0.995)
            _, *targets = features(self.copies, pairs.pixels, ids, mask)
            weights = (similarities(*units, self.temp).softmax(1) + 1e-4).fill_diagonal_(0)
            neg_image, neg_text = (torch.multinomial(w, 1).flatten() for w in (weights.T, weights))
        itc = torch.zeros(())
        for side, other in ((0, 1), (1, 0)):
            keys = torch.cat([targets[other], self.queues[other]])
            soft = soften(MATCHES, similarities(targets[side], keys, self.temp), 0.4).detach()
            itc = itc + contrastive(similarities(units[side], keys, self.temp), soft) / 2
        self.queues[0][:BATCH], self.queues[1][:BATCH] = targets
        images, texts = torch.cat([rows, neg_image, rows]), torch.cat([rows, rows, neg_text])
        fused = self.online[2](ids[texts], mask[texts], encoder_hidden_states=states[images])
        itm = F.cross_entropy(
            self.itm_head(fused.last_hidden_state[:, 0]), (images == texts).long()
        )
        labels = ids.masked_fill(mask == 0, -100)
        lm = self.decoder(ids, mask, encoder_hidden_states=states, labels=labels)
        return itc + itm + lm.loss


def features(towers: nn.ModuleList, pixels: Tensor, *text: Tensor) -> tuple[Tensor, ...]:
    """Run vision tower, text encoder, and their heads."""
    states, words = towers[0](pixels).last_hidden_state, towers[2](*text).last_hidden_state
    return states, F.normalize(towers[1](states[:, 0])), F.normalize(towers[3](words[:, 0]))


def build(case: str) -> tuple[nn.Module, Callable[[Pairs], Tensor]]:
    """Make a case's network, and what computes its loss."""
    if case in ("original", "longest"):
        return (theirs := Theirs()), theirs
    if case == "transformers lm":
        lm = BlipForConditionalGeneration(CONFIG)
        return lm, lambda p: lm(p.pixels, p.ids, p.mask, labels=p.ids).loss
    if case == "capfilt lm":
        n = CaptionNetwork(CONFIG)
        return n, lambda p: language_loss(n.text_decoder, p.ids, p.mask, n.vision_model(p.pixels))
    network, queue = PretrainNetwork(CONFIG), FeatureQueue(256, QUEUE)
    for tower in (network.vision_model, network.text_encoder, network.text_decoder.bert):
        tower.encoder.recomputed = 12 if case == "recomputed" else 0
    rest = queue, StepSettings(WORDS - 1, WORDS - 2, alpha=0.4), torch.Generator()
    return network, lambda p: network(p, *rest).total


def measure(dtype: str, case: str) -> None:
    """Take steps of one case, the first to warm up, and print what they took."""
    network, loss = build(case)
    loss = torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16")(loss)
    for name, parameter in network.named_parameters():
        if "norm" not in name.lower() and name != "temp":
            nn.init.normal_(parameter, std=0.02)
    mask = torch.arange(30 if case == "original" else 18) < torch.linspace(10, 18, BATCH)[:, None]
    ids = torch.randint(999, 30_000, mask.shape).masked_fill(~mask, 0)
    pairs = Pairs(torch.randn(BATCH, 3, SIDE, SIDE), ids, mask)
    optimizer, seconds = torch.optim.AdamW(network.train().parameters(), 1e-6, fused=True), []
    for _ in range(4):
        began = time.perf_counter()
        loss(pairs).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - began)
    took, peak = sorted(seconds[1:])[1], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{dtype} {case:15} {took:6.2f} s/step {BATCH / took:6.2f} samples/s {peak:6.2f} GiB")


if __name__ == "__main__":
    if sys.argv[1:]:
        typer.run(measure)  # it exits
    for dtype_and_case in ((dtype, case) for case in CASES for dtype in ("fp32", "bf16")):
        subprocess.run([sys.executable, __file__, *dtype_and_case], check=True)
