"""Checkpoints of the original BLIP code: one pickle `{"model": state dict}`, names of its own.

Everything is translated to the names of transformers' BLIP, which this project uses throughout.
"""

import re
from pathlib import Path

import torch
from torch import Tensor

from models.checkpoints.locate import CheckpointError
from models.checkpoints.prefix import common_prefix
from models.checkpoints.weights import ALIASES, check_table, read_pickle

_TOWER = re.compile(r"^visual_encoder(_m)?\.")
# what all names of the original begin with
_PARTS = re.compile(
    r"(visual_encoder|text_encoder|text_decoder|vision_proj|text_proj)(_m)?\."
    r"|(itm_head|cls_head)\.|(temp|image_queue|text_queue|idx_queue|ptr_queue|queue_ptr)$"
)
# names within the vision tower; the text transformer's are the same in both
_WITHIN_TOWER = (
    (re.compile(r"^cls_token$"), "embeddings.class_embedding"),
    (re.compile(r"^pos_embed$"), "embeddings.position_embedding"),
    (re.compile(r"^patch_embed\.proj\."), "embeddings.patch_embedding."),
    (re.compile(r"^norm\."), "post_layernorm."),
    (re.compile(r"^blocks\.(\d+)\.norm([12])\."), r"encoder.layers.\1.layer_norm\2."),
    (re.compile(r"^blocks\.(\d+)\.attn\.qkv\."), r"encoder.layers.\1.self_attn.qkv."),
    (re.compile(r"^blocks\.(\d+)\.attn\.proj\."), r"encoder.layers.\1.self_attn.projection."),
    (re.compile(r"^blocks\.(\d+)\.mlp\."), r"encoder.layers.\1.mlp."),
)


def rename(name: str) -> str:
    """Translate the original name of a tensor; the suffix `_m` of momentum copies stays."""
    tower = _TOWER.match(name)
    if tower is None:
        return name
    inner = name[tower.end() :]
    for pattern, replacement in _WITHIN_TOWER:
        inner, count = pattern.subn(replacement, inner)
        if count:
            break
    return f"vision_model{tower.group(1) or ''}.{inner}"


def read_original(path: Path) -> dict[str, Tensor]:
    """Read an original .pth file, its tensors under our names; nothing in it is run.

    Position ids, which are constants, and second names of tied tensors are left out, and so is what
    stands before all names, such as `module.`.
    CheckpointError for anything but a table of tensors under "model".
    """
    if path.suffix == ".safetensors":
        raise CheckpointError(
            f"{path} is a file of weights alone. Give its folder, with config.json and tokenizer."
        )
    loaded = read_pickle(path)
    if not isinstance(loaded, dict) or not isinstance(loaded.get("model"), dict):
        found = sorted(map(str, loaded))[:5] if isinstance(loaded, dict) else type(loaded).__name__
        raise CheckpointError(
            f"{path} holds {found}; expected a table of tensors under 'model', as the original "
            "BLIP code writes it"
        )
    table = check_table(loaded["model"], path)
    start = len(common_prefix(table, lambda name: _PARTS.match(name) is not None))
    table = {name[start:]: tensor for name, tensor in table.items()}
    tensors: dict[str, Tensor] = {}
    for name, tensor in table.items():
        if name.endswith(".position_ids"):
            continue
        renamed = rename(name)
        if renamed in tensors:
            raise CheckpointError(f"{path} holds {renamed} under two names")
        tensors[renamed] = tensor
    for second, first in ALIASES.items():
        if second in tensors:
            tensor = tensors.pop(second)
            if not torch.equal(tensors.setdefault(first, tensor), tensor):
                raise CheckpointError(f"{path}: {second} differs from {first}, to which it is tied")
    return tensors
