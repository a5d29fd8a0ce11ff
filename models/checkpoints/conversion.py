"""Checkpoints from other forms to ours, and from ours to Hugging Face's own classes.

What is imported from the original computes what the original computes: [ENC] before a text that is
read with an image, vision eps 1e-6, beams divided by their total length. What is imported from
Hugging Face computes what transformers computes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from torch import Tensor
from transformers import BlipConfig

from models.blip import tokenizer as tokenizers
from models.blip.config import ORIGINAL, Role
from models.blip.positions import interpolate_all
from models.blip.preprocess import Preprocess
from models.blip.tokenizer import WordPiece
from models.checkpoints.checkpoint import read, read_training
from models.checkpoints.description import check_config, refit
from models.checkpoints.folder import CheckpointContent
from models.checkpoints.layout import Shapes, Sizes, config_of, role_of_tensors, training_state
from models.checkpoints.local_folder import path_of
from models.checkpoints.locate import CheckpointError
from models.checkpoints.original import read_original
from models.checkpoints.role_networks import build, ties
from models.checkpoints.weights import arrange

BERT = "google-bert/bert-base-uncased"  # whose vocabulary all of BLIP's models have
# a name may come to mean other words, and a run's numbers with it
BERT_REVISION = "86b5e0934494bd15c9632b12f734a8a67f723594"
_QUEUES = ("image_queue", "text_queue", "queue_ptr")


@dataclass(frozen=True, slots=True)
class Imported:
    """A checkpoint in our form, where its settings came from, and what was left out of it."""

    content: CheckpointContent
    sources: Mapping[str, str]
    left_out: tuple[str, ...] = ()


def import_original(
    path: Path, words: WordPiece, stated: Sizes | None = None, image_size: int | None = None
) -> Imported:
    """Read one of the original's .pth files: role and sizes from its tensors.

    `stated`: what the user's config says, by `layout.read_stated`. Momentum copies and queues are
    kept of a pre-training checkpoint, and left out of others. Positions are stretched to
    `image_size`, in pixels, if one is given.
    """
    tensors = read_original(path)
    try:
        role, config, sources = plan(_shapes(tensors), words, stated)
    except (CheckpointError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be imported: {error}") from error
    left_out = () if role == "pretrain" else tuple(training_state(tensors))
    training = {}
    if role == "pretrain":
        training = {name: tensors[name] for name in _QUEUES if name in tensors}
        _check_queues(path, training, config)
    wanted = {
        name: tensor
        for name, tensor in tensors.items()
        if name not in training and name not in left_out
    }
    with torch.device("meta"):
        network = build(role, config)
    fitted = arrange(wanted, _shapes(network.state_dict()), path, ties=ties(network))
    _check_finite(path, fitted | training)
    size = config.vision_config.image_size
    preprocess = Preprocess(size, size)
    if image_size is not None:
        config, preprocess = refit(path, config, preprocess, image_size)
        fitted = interpolate_all(fitted, image_size // config.vision_config.patch_size)
        sources["image_size"] = "asked for"
    content = CheckpointContent(role, config, ORIGINAL, preprocess, words, fitted, training)
    return Imported(content, sources, left_out)


def plan(
    shapes: Shapes, words: WordPiece, stated: Sizes | None = None
) -> tuple[Role, BlipConfig, dict[str, str]]:
    """Derive role, config and the sources of its settings from an original's shapes (our names)."""
    role = role_of_tensors(shapes)
    config, sources = config_of(shapes, stated or {}, sep_id=words.sep_id, pad_id=words.pad_id)
    check_config(config)
    size = config.text_config.vocab_size
    if (words.size, words.dec_id, words.enc_id) != (size, size - 2, size - 1):
        raise CheckpointError(
            f"its vocabulary has {size} words, [DEC] and [ENC] the last two; the tokenizer has "
            f"{words.size}. Give the one that it was trained with (--vocab or --tokenizer)."
        )
    settings = dict.fromkeys(("itm_first_token", "length_rule"), "as the original")
    return role, config, {"role": "tensors", "image_size": "tensors", **settings, **sources}


def import_folder(folder: Path, image_size: int | None = None) -> Imported:
    """Read a Hugging Face folder, or one of ours."""
    described, tensors = read(folder, image_size=image_size)
    _check_finite(folder, tensors)
    content = CheckpointContent(
        described.role,
        described.config,
        described.settings,
        described.preprocess,
        described.tokenizer,
        tensors,
        read_training(folder),
    )
    return Imported(content, described.sources)


def vocabulary(path: Path | None) -> WordPiece:
    """Read a tokenizer's folder or a vocab.txt, by default BERT's own from the hub."""
    if path is None:
        try:
            folder = snapshot_download(BERT, revision=BERT_REVISION, allow_patterns=["vocab.txt"])
            path = Path(folder) / "vocab.txt"
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"an original checkpoint holds no vocabulary, and the hub did not give that of "
                f"{BERT}. Give its file by --vocab, or a folder by --tokenizer."
            ) from error
    try:
        return tokenizers.extend(path_of(path))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as a vocabulary: {error}") from error


def for_hugging_face(content: CheckpointContent, role: Role | None) -> CheckpointContent:
    """Take what a class of transformers can hold; CheckpointError where there is none.

    `role`: the captioner or filter within a pre-training checkpoint; elsewhere its own role.
    """
    if content.role == "pretrain" and role in ("captioner", "filter"):
        return _part(content, role)
    if role not in (None, content.role):
        raise CheckpointError(
            f"a {content.role} holds no {role}; only pre-training holds a captioner and a filter"
        )
    if content.role == "pretrain":
        raise CheckpointError(
            "transformers has no class for pre-training. Give --role captioner or --role filter."
        )
    if content.role not in ("captioner", "filter", "vqa"):
        raise CheckpointError(f"transformers has no class for the role {content.role}")
    text = content.config.text_config
    if content.role == "vqa" and text.hidden_size != text.encoder_hidden_size:
        raise CheckpointError(
            f"BlipForQuestionAnswering holds equal widths only; here images have "
            f"{text.encoder_hidden_size} and questions {text.hidden_size}"
        )
    return content


def _part(content: CheckpointContent, role: Role) -> CheckpointContent:
    with torch.device("meta"):
        second = ties(build("pretrain", content.config))
        wanted = build(role, content.config).state_dict()
    tensors = {name: content.tensors[second.get(name, name)] for name in wanted}
    return replace(content, role=role, tensors=tensors, training={})


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _check_queues(path: Path, queues: Mapping[str, Tensor], config: BlipConfig) -> None:
    missing = [name for name in _QUEUES if name not in queues]
    if missing:
        raise CheckpointError(f"{path} lacks {missing}; expected a whole pre-training checkpoint")
    shared = config.image_text_hidden_size
    image, text, pointer = (queues[name] for name in _QUEUES)
    fits = image.dim() == 2 and image.shape[0] == shared and text.shape == image.shape
    whole = not pointer.is_floating_point() and pointer.numel() == 1
    if not fits or not whole or not 0 <= int(pointer) < image.shape[1]:
        raise CheckpointError(
            f"{path}: image_queue {tuple(image.shape)}, text_queue {tuple(text.shape)} and "
            f"queue_ptr {pointer.tolist() if pointer.numel() == 1 else tuple(pointer.shape)} do "
            f"not fit; expected two of ({shared}, places) and one place"
        )


def _check_finite(where: Path, tensors: Mapping[str, Tensor]) -> None:
    broken = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise CheckpointError(
            f"{where} holds NaN or infinite values in some tensors ({len(broken)}, such as "
            f"{broken[0]})"
        )
