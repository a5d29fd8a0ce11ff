"""Memory and time of one training step at base size, beside what transformers has of the model.

Each case runs in a process of its own, on random weights, images and texts, with AdamW. `capfilt`
does all of a pre-training step: ITC with momentum copies and queue, ITM with hard negatives, LM.
transformers has no such class: `transformers` puts its towers for captioning and retrieval
together, without momentum copies, queue, shared layers and hard negatives. `lm` is LM alone.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BlipConfig, BlipForConditionalGeneration, BlipForImageTextRetrieval

from models.blip import CaptionNetwork
from models.captioning import language_loss
from models.config import blip_config
from models.contrast import Pairs
from models.momentum import FeatureQueue
from models.pretraining import PretrainNetwork, StepSettings

BATCH, SIDE, STEPS = 8, 224, 3
VOCABULARY, QUEUE = 30_524, 57_600
Case = tuple[nn.Module, Callable[[], Tensor]]


def main() -> None:
    """Run each case by itself."""
    print(f"base, batch {BATCH}, {SIDE} px, 30 tokens, {os.cpu_count()} cores", flush=True)
    for dtype in ("fp32", "bf16"):
        for case in CASES:
            subprocess.run([sys.executable, __file__, dtype, case], check=True)


def measure(dtype: str, case: str) -> None:
    """Take steps of one case, the first to warm up, and print what they took."""
    torch.manual_seed(0)
    config = blip_config("base", vocab_size=VOCABULARY, sep_id=102, pad_id=0, image_size=SIDE)
    pixels, ids = torch.randn(BATCH, 3, SIDE, SIDE), torch.randint(9, 30_000, (BATCH, 30))
    batch = Pairs(pixels, ids, torch.ones_like(ids, dtype=torch.bool))
    network, loss = CASES[case](config, batch)
    for name, parameter in network.named_parameters():
        if "norm" not in name.lower() and name != "temp":
            nn.init.normal_(parameter, std=0.02)
    trained = [p for p in network.train().parameters() if p.requires_grad]
    optimiser, times = torch.optim.AdamW(trained, lr=1e-6), []
    for _ in range(STEPS + 1):
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            total = loss()
        total.backward()
        optimiser.step()
        optimiser.zero_grad()
        times.append(time.perf_counter() - started)
    count = sum(p.numel() for p in trained) / 1e6
    took = f"{median(times[1:]):6.2f} s/step, {count:3.0f} M trained"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{dtype} {case:19} {took}, peak {peak:5.2f} GiB", flush=True)


def ours(config: BlipConfig, batch: Pairs, *, recomputed: int = 0) -> Case:
    """Make the step of this project; with `recomputed`, so many layers keep no activations."""
    network = PretrainNetwork(config)
    queue, generator = FeatureQueue(256, QUEUE), torch.Generator().manual_seed(0)
    settings = StepSettings(VOCABULARY - 1, VOCABULARY - 2)
    for tower in (network.vision_model, network.text_encoder, network.text_decoder.bert):
        tower.encoder.recomputed = recomputed
    return network, lambda: network(batch, queue, settings, generator).total


def lm(config: BlipConfig, batch: Pairs, *, own: bool) -> Case:
    """Make a step of LM alone, of this project or of transformers."""
    pixels, ids, mask = batch.pixels, batch.ids, batch.mask
    if not own:
        theirs = BlipForConditionalGeneration(config)
        return theirs, lambda: theirs(pixels, ids, mask, labels=ids).loss
    ours = CaptionNetwork(config)
    return ours, lambda: language_loss(ours.text_decoder, ids, mask, ours.vision_model(pixels))


def theirs(config: BlipConfig, batch: Pairs) -> Case:
    """Make ITC in the batch, ITM at 1 : 2 and LM of transformers' towers."""
    matcher, decoder = BlipForImageTextRetrieval(config), BlipForConditionalGeneration(config)
    decoder, text, ids, mask = decoder.text_decoder, matcher.text_encoder, batch.ids, batch.mask
    right = torch.arange(len(ids))
    other = right.roll(1)  # stands for what hard negatives would choose
    rows, columns = torch.cat([right, other, right]), torch.cat([right, right, other])

    def loss() -> Tensor:
        states = matcher.vision_model(batch.pixels).last_hidden_state
        alone = matcher.text_proj(text(ids, mask).last_hidden_state[:, 0])
        images = F.normalize(matcher.vision_proj(states[:, 0]), dim=-1)
        similar = images @ F.normalize(alone, dim=-1).T / 0.07
        itc = F.cross_entropy(similar, right) + F.cross_entropy(similar.T, right)
        hidden = text(ids[columns], mask[columns], encoder_hidden_states=states[rows])
        logits = matcher.itm_head(hidden.last_hidden_state[:, 0])
        itc += F.cross_entropy(logits, (rows == columns).long())
        return itc + decoder(ids, mask, encoder_hidden_states=states, labels=ids).loss

    return nn.ModuleDict({"matcher": matcher, "decoder": decoder}), loss


CASES: dict[str, Callable[[BlipConfig, Pairs], Case]] = {
    "capfilt": ours,
    "capfilt recomputed": partial(ours, recomputed=12),
    "transformers": theirs,
    "capfilt lm": partial(lm, own=True),
    "transformers lm": partial(lm, own=False),
}

if __name__ == "__main__":
    measure(*sys.argv[1:]) if sys.argv[1:] else main()
