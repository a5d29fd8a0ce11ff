"""Other captioners of today, by transformers: Florence-2-base and SmolVLM-256M.

Their sizes are written out from their published configs and their weights are random, so nothing is
downloaded. They caption alone, as many tokens as we do, and score nothing. Their processors want
files that are not here: pictures are resized and normalised by torch, and ids are of the right
number. SmolVLM sees one picture of 512 px, as it does when splitting is off.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from transformers import (
    Florence2Config,
    Florence2ForConditionalGeneration,
    PreTrainedModel,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from models.blip.config import TORCH_DTYPES
from scripts.bench.inputs import Inputs, Pairs

FLORENCE_PX, FLORENCE_STATES = 768, 577
SMOL_PX, SMOL_STATES, SMOL_IMAGE = 512, 64, 49_190
ASKED = 12  # tokens of a question such as "What does the image describe?"

Ask = Callable[[Tensor], dict[str, Tensor]]


def open_florence(inputs: Inputs, share: int) -> Callable[[], int]:
    """Open Florence-2-base: 0.23 B parameters, pictures of 768 px."""
    layers = {"encoder_layers": 6, "decoder_layers": 6, "max_position_embeddings": 4_096}
    heads = {"encoder_attention_heads": 12, "decoder_attention_heads": 12}
    widths = {"d_model": 768, "encoder_ffn_dim": 3_072, "decoder_ffn_dim": 3_072}
    config = Florence2Config(
        vision_config={"projection_dim": 768},
        text_config={"model_type": "bart", "vocab_size": 51_290, **layers, **heads, **widths},
        image_token_id=51_289,
    )

    def ask(pixels: Tensor) -> dict[str, Tensor]:
        ids = [config.image_token_id] * FLORENCE_STATES + [100] * ASKED
        return {"input_ids": _rows(ids, pixels), "pixel_values": pixels}

    return _open(
        inputs, share, partial(Florence2ForConditionalGeneration, config), ask, FLORENCE_PX
    )


def open_smolvlm(inputs: Inputs, share: int) -> Callable[[], int]:
    """Open SmolVLM-256M: a SigLIP tower of base size, and a language model of 135 M."""
    vision = {"hidden_size": 768, "num_attention_heads": 12, "image_size": SMOL_PX}
    text = {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1_536, "head_dim": 64}
    text |= {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3}
    text |= {"vocab_size": 49_280, "max_position_embeddings": 8_192, "pad_token_id": 2}
    config = SmolVLMConfig(
        vision_config={**vision, "patch_size": 16},
        text_config=text,
        image_token_id=SMOL_IMAGE,
        scale_factor=4,
        pad_token_id=2,
        tie_word_embeddings=False,
    )

    def ask(pixels: Tensor) -> dict[str, Tensor]:
        ids = _rows([SMOL_IMAGE] * SMOL_STATES + [100] * ASKED, pixels)
        return {"input_ids": ids, "pixel_values": pixels[:, None]}

    return _open(inputs, share, partial(SmolVLMForConditionalGeneration, config), ask, SMOL_PX)


def _rows(ids: list[int], pixels: Tensor) -> Tensor:
    return torch.tensor(ids, device=pixels.device).expand(len(pixels), -1)


def _open(
    inputs: Inputs, share: int, make: Callable[[], PreTrainedModel], ask: Ask, px: int
) -> Callable[[], int]:
    torch.manual_seed(0)
    model = make().to(inputs.device, TORCH_DTYPES[inputs.dtype]).eval()

    @torch.inference_mode()
    def step(pairs: Pairs) -> None:
        pictures = [np.array(image.resize((px, px)), dtype=np.uint8) for image, _ in pairs]
        pixels = torch.from_numpy(np.stack(pictures)).to(inputs.device).permute(0, 3, 1, 2)
        asked = ask(pixels.to(model.dtype) / 127.5 - 1)
        mask = torch.ones_like(asked["input_ids"])
        count = {"min_new_tokens": inputs.tokens, "max_new_tokens": inputs.tokens}
        model.generate(**asked, attention_mask=mask, do_sample=False, num_beams=1, **count)

    step(list(inputs.pairs(inputs.shards[0]))[:1])
    return partial(inputs.in_batches, step, inputs.batch, share)
