"""What one writes with transformers: caption each picture, score its text and its caption by ITM.

One by one as the model card shows, in batches, or in batches with each model's vision tower run
once a picture. Decoding of pictures and all of their own preprocessing count, as they do with us.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from models.blip.config import Dtype
from scripts.bench.inputs import Inputs, Pairs
from scripts.bench.loop import Loop
from scripts.bench.meter import measure

Step = Callable[["Loop", Pairs], None]
TRIED = (0.5, 1, 2)  # times the batch that is asked for: they run with the fastest


def encode_thrice(loop: Loop, pairs: Pairs) -> None:
    """Follow the classes' own interface: each text is scored with its picture, encoded again."""
    batch = loop.look(pairs)
    for texts in ([text for _, text in pairs], loop.caption(batch)):
        scores = loop.scorer(**loop.words(texts), pixel_values=batch["pixel_values"]).itm_score
        scores.softmax(-1).tolist()


def encode_once(loop: Loop, pairs: Pairs) -> None:
    """Reach into the filter: its vision tower runs once, both texts are read against it."""
    batch, scorer = loop.look(pairs), loop.scorer
    states = scorer.vision_model(pixel_values=batch["pixel_values"]).last_hidden_state
    seen = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
    for texts in ([text for _, text in pairs], loop.caption(batch)):
        ids = loop.words(texts)
        encoded = scorer.text_encoder(
            input_ids=ids["input_ids"],
            attention_mask=ids["attention_mask"],
            encoder_hidden_states=states,
            encoder_attention_mask=seen,
        )
        scorer.itm_head(encoded.last_hidden_state[:, 0]).softmax(-1).tolist()


def open_card(inputs: Inputs, share: int) -> Callable[[], int]:
    """Open the model card's way: one picture at a time, in fp32."""
    return open_loop(inputs, share, encode_thrice, "fp32", sizes=(1,))


def open_batched(inputs: Inputs, share: int) -> Callable[[], int]:
    """Open batches through the classes' own interface."""
    return open_loop(inputs, share, encode_thrice, inputs.dtype, _sizes(inputs.batch))


def open_once(inputs: Inputs, share: int) -> Callable[[], int]:
    """Open batches with one encoding of a picture by each model."""
    return open_loop(inputs, share, encode_once, inputs.dtype, _sizes(inputs.batch))


@torch.inference_mode()
def open_loop(
    inputs: Inputs, share: int, step: Step, dtype: Dtype, sizes: Sequence[int]
) -> Callable[[], int]:
    """Load the models, and warm up; what is returned does a share of the pictures.

    The fastest of several sizes of batches is found in the first turn, and serves in all.
    """
    loop, warm_up = Loop(inputs, dtype), list(inputs.pairs(inputs.shards[0]))
    step(loop, warm_up[:1])
    found = inputs.folder / f"{step.__name__}-{sizes[-1]}.size"
    if len(sizes) > 1 and not found.exists():
        pace = {size: _pace(partial(step, loop), warm_up, size) for size in sizes}
        found.write_text(str(max(pace, key=pace.__getitem__)))
    size = int(found.read_text()) if found.exists() else sizes[0]
    if size > 1:
        step(loop, warm_up[:size])

    @torch.inference_mode()
    def work() -> int:
        return inputs.in_batches(partial(step, loop), size, share)

    return work


def _pace(step: Callable[[Pairs], None], warm_up: list[Any], size: int) -> float:
    pairs = (warm_up * (size // len(warm_up) + 1))[:size]

    def work() -> int:
        step(pairs)
        return size

    return measure(work).images_per_s


def _sizes(batch: int) -> tuple[int, ...]:
    return tuple(dict.fromkeys(max(1, round(batch * factor)) for factor in TRIED))
