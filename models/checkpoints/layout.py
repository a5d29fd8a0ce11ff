"""What the tensors of an original checkpoint tell: its role and its sizes.

The original writes no config into its files. Numbers of heads cannot be read from tensors: all of
BLIP's models have heads of 64 (BLIP §4.1), and a stated config may say otherwise.
"""

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from transformers import BlipConfig

from models.blip.config import Role, compose
from models.blip.positions import GRIDS, side
from models.bounded_file import SETTINGS_BYTES, fault_of, read_bounded
from models.checkpoints.locate import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]
Sizes = dict[str, dict[str, Any]]  # of the parts `vision` and `text`

HEAD_WIDTH = 64
_DEFAULT_SHARED = 256  # where no projection is there to tell
# what only training needs: momentum copies, their queues and the temperature
_TRAINING = re.compile(
    r"^(vision_model_m|text_encoder_m|vision_proj_m|text_proj_m)\."
    r"|^(temp|image_queue|text_queue|idx_queue|ptr_queue|queue_ptr)$"
)
# the original's words for what is ours; None where the word is the same
_VISION_WORDS = {
    "img_size": "image_size",
    "patch_size": "patch_size",
    "embed_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "layer_norm_eps": "layer_norm_eps",
}
_TEXT_WORDS = {
    "encoder_width": "encoder_hidden_size",
    **{
        word: word
        for word in (
            "hidden_size",
            "num_attention_heads",
            "num_hidden_layers",
            "intermediate_size",
            "layer_norm_eps",
            "max_position_embeddings",
            "vocab_size",
        )
    },
}
_FREE = ("num_attention_heads", "layer_norm_eps")  # what tensors do not tell


def role_of_tensors(names: Collection[str]) -> Role:
    """Derive the role of an original checkpoint from the names of its tensors (our names)."""
    encoder, decoder = (
        any(name.startswith(f"{part}.") for name in names)
        for part in ("text_encoder", "text_decoder")
    )
    heads = any(name.startswith("itm_head.") for name in names)
    if any(".crossattention.self0." in name for name in names):
        return "nlvr"
    if decoder and (heads or "image_queue" in names):
        return "pretrain"
    if heads:
        return "filter"
    if decoder:
        return "vqa" if encoder else "captioner"
    if encoder:
        return "features"
    raise CheckpointError(
        "the checkpoint has neither text_encoder nor text_decoder; expected one of BLIP's models"
    )


def training_state(names: Collection[str]) -> list[str]:
    """List the tensors that only training needs."""
    return [name for name in names if _TRAINING.search(name)]


def sizes_of(shapes: Shapes) -> Sizes:
    """Read all sizes that tensors tell; CheckpointError names a tensor that is missing or bent."""
    tower = "vision_model"
    patch = _shape(shapes, f"{tower}.embeddings.patch_embedding.weight", 4)
    places = _shape(shapes, GRIDS[0], 3)
    try:
        grid = side(places[1])
    except ValueError as error:
        raise CheckpointError(f"{GRIDS[0]}: {error}") from error
    vision = {
        "hidden_size": patch[0],
        "patch_size": patch[3],
        "image_size": grid * patch[3],
        "num_hidden_layers": _layers(shapes, f"{tower}.encoder.layers."),
        "intermediate_size": _shape(shapes, f"{tower}.encoder.layers.0.mlp.fc1.weight", 2)[0],
    }
    named = any(name.startswith("text_encoder.") for name in shapes)
    stack = "text_encoder" if named else "text_decoder.bert"
    words = _shape(shapes, f"{stack}.embeddings.word_embeddings.weight", 2)
    first = f"{stack}.encoder.layer.0"
    key = f"{first}.crossattention.self.key.weight"
    if key not in shapes and f"{first}.crossattention.self0.key.weight" in shapes:
        key = f"{first}.crossattention.self0.key.weight"
    text = {
        "vocab_size": words[0],
        "hidden_size": words[1],
        "encoder_hidden_size": _shape(shapes, key, 2)[1],
        "max_position_embeddings": _shape(
            shapes, f"{stack}.embeddings.position_embeddings.weight", 2
        )[0],
        "num_hidden_layers": _layers(shapes, f"{stack}.encoder.layer."),
        "intermediate_size": _shape(shapes, f"{first}.intermediate.dense.weight", 2)[0],
    }
    return {"vision": vision, "text": text}


def config_of(
    shapes: Shapes, stated: Sizes, *, sep_id: int, pad_id: int
) -> tuple[BlipConfig, dict[str, str]]:
    """Describe the network of these tensors, and name where each setting came from.

    `stated`: what the user's config says, by `read_stated`; it must agree with the tensors.
    """
    parts, sources = sizes_of(shapes), {"sizes": "tensors"}
    problems = []
    for part, sizes in parts.items():
        said = stated.get(part, {})
        for name, value in said.items():
            if name not in _FREE and value != sizes[name]:
                problems.append(f"{part} {name} is {value!r}; the tensors have {sizes[name]}")
        heads, origin = said.get("num_attention_heads"), "config"
        if heads is None:
            heads, origin = _heads(part, sizes["hidden_size"]), f"width / {HEAD_WIDTH}"
        sizes["num_attention_heads"] = heads
        sources[f"{part}_heads"] = origin
        if "layer_norm_eps" in said:
            sizes["layer_norm_eps"] = said["layer_norm_eps"]
    if problems:
        raise CheckpointError("the stated config does not fit: " + "; ".join(problems))
    projection = shapes.get("vision_proj.weight")
    shared = projection[0] if projection else _DEFAULT_SHARED
    config = compose(parts["vision"], parts["text"], sep_id=sep_id, pad_id=pad_id, shared=shared)
    return config, sources


def read_stated(path: Path) -> Sizes:
    """Read a config in the original's words: an object with the blocks `vision` and `text`.

    The object may stand alone, or under `config` in a larger one. Words that concern neither
    sizes nor LayerNorm are passed over.
    """
    try:
        block = json.loads(read_bounded(path, SETTINGS_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(fault_of(path, "cannot be read as JSON", error)) from error
    if isinstance(block, dict) and isinstance(block.get("config"), dict):
        block = block["config"]
    parts = {"vision": _VISION_WORDS, "text": _TEXT_WORDS}
    if not isinstance(block, dict) or not any(isinstance(block.get(p), dict) for p in parts):
        raise CheckpointError(f"{path} has no blocks 'vision' and 'text'")
    stated: Sizes = {}
    for part, words in parts.items():
        said = block.get(part, {})
        if not isinstance(said, dict):
            raise CheckpointError(f"{path}: {part} is no object")
        stated[part] = {ours: said[word] for word, ours in words.items() if word in said}
        for name, value in stated[part].items():
            _check_number(f"{path}: {part} {name}", value, whole=name != "layer_norm_eps")
        width, ratio = stated[part].get("hidden_size"), said.get("mlp_ratio")
        if part == "vision" and width is not None and ratio is not None:
            _check_number(f"{path}: vision mlp_ratio", ratio, whole=False)
            stated[part]["intermediate_size"] = int(width * ratio)
    return stated


def _check_number(what: str, value: object, *, whole: bool) -> None:
    kind = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value < 1e9:
        expected = "a positive whole number" if whole else "a positive number"
        raise CheckpointError(f"{what} is {value!r}; expected {expected}")


def _heads(part: str, width: int) -> int:
    if width % HEAD_WIDTH:
        raise CheckpointError(
            f"the {part} width {width} is no multiple of {HEAD_WIDTH}, so the tensors do not tell "
            "the number of heads. Give it by --config JSON."
        )
    return width // HEAD_WIDTH


def _shape(shapes: Shapes, name: str, dimensions: int) -> tuple[int, ...]:
    found = shapes.get(name)
    if found is None or len(found) != dimensions or 0 in found:
        what = "missing" if found is None else f"of shape {found}"
        raise CheckpointError(f"{name}, which tells the sizes, is {what}")
    return found


def _layers(shapes: Shapes, start: str) -> int:
    """Count layers by the highest number, so that one that lacks is listed as missing later."""
    pattern = re.compile(re.escape(start) + r"(\d{1,6})\.")
    numbers = [int(found[1]) for name in shapes if (found := pattern.match(name))]
    if not numbers:
        raise CheckpointError(f"{start}0, which tells the sizes, is missing")
    return max(numbers) + 1
