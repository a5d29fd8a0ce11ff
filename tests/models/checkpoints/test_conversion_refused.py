"""What is no original file, or a damaged one, is refused with its name and all that is wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.blip.tokenizer import WordPiece
from models.checkpoints import checkpoint, conversion
from models.checkpoints.conversion import import_original
from models.checkpoints.layout import read_stated
from models.checkpoints.locate import CheckpointError


def test_what_is_missing_extra_or_bent_is_listed(
    damaged: Callable[..., Path],
    parity: Path,
    vocabulary: WordPiece,
    sizes_of: Callable[[str], dict[str, Any]],
) -> None:
    sizes = sizes_of("itm")
    text, vision = sizes["text"]["hidden_size"], sizes["vision"]["embed_dim"]
    path = damaged(
        "itm",
        itm_head__bias=None,
        itm_head__weight=torch.ones(3, text),
        text_encoder__pooler=torch.ones(1),
        visual_encoder__blocks__0__norm1__bias=torch.ones(vision, dtype=torch.int32),
    )
    with pytest.raises(CheckpointError) as caught:
        import_original(path, vocabulary, read_stated(parity / "itm.json"))
    for line in (
        f"the tensors in {path} do not fit its settings (problems: 4)",
        "missing itm_head.bias",
        f"itm_head.weight has shape (3, {text}); expected (2, {text})",
        "unexpected text_encoder.pooler",
        "layers.0.layer_norm1.bias holds torch.int32; expected floating point",
    ):
        assert line in str(caught.value)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "itm",
            {"vision_proj__bias": lambda bias: torch.full_like(bias, torch.nan)},
            r"NaN .* \(1, such as",
        ),
        ("itm", {"visual_encoder__cls_token": None}, "missing vision_model.*class_embedding"),
        ("itm", {"visual_encoder__blocks__99999__norm1__bias": torch.ones(1)}, "num_hidden_layers"),
        ("pretrain", {"queue_ptr": lambda _: torch.tensor([999])}, "queue_ptr .999. do not fit"),
        ("pretrain", {"text_queue": lambda queue: queue[:, :7]}, r"text_queue .\d+, 7. and"),
        ("pretrain", {"text_queue": None}, "lacks .'text_queue'."),
        (
            "pretrain",
            {"text_decoder__bert__embeddings__LayerNorm__bias": lambda bias: bias + 9},
            "differs from text_encoder.embeddings.LayerNorm.bias, to which it is tied",
        ),
    ],
)
def test_a_damaged_original_is_refused(
    damaged: Callable[..., Path],
    parity: Path,
    vocabulary: WordPiece,
    name: str,
    changes: dict[str, Any],
    message: str,
) -> None:
    path = damaged(name, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        import_original(path, vocabulary, read_stated(parity / f"{name}.json"))
    assert str(path) in str(caught.value)


def test_heads_that_do_not_divide_the_width_are_refused(
    parity: Path, vocabulary: WordPiece, sizes_of: Callable[[str], dict[str, Any]]
) -> None:
    stated, width = (
        read_stated(parity / "itm.json"),
        sizes_of("itm")["vision"]["embed_dim"],
    )
    heads = next(number for number in range(2, width) if width % number)
    stated["vision"]["num_attention_heads"] = heads
    message = f"{width} is not a multiple of num_attention_heads {heads}"
    with pytest.raises(CheckpointError, match=message):
        import_original(parity / "itm.pth", vocabulary, stated)


def test_the_wrong_vocabulary_is_refused(
    parity: Path, tmp_path: Path, sizes_of: Callable[[str], dict[str, Any]]
) -> None:
    words = (parity / "vocab.txt").read_text().splitlines()
    short = tmp_path / "short.txt"
    short.write_text("\n".join(words[:-1]))
    stated = read_stated(parity / "itm.json")
    size = sizes_of("itm")["text"]["vocab_size"]
    message = f"has {size} words.*the tokenizer has {size - 1}"
    with pytest.raises(CheckpointError, match=message):
        import_original(parity / "itm.pth", conversion.vocabulary(short), stated)
    short.write_text("\n".join([*words[:-1], words[0]]))
    with pytest.raises(CheckpointError, match="names a word twice"):
        conversion.vocabulary(short)
    short.write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"short\.txt"):
        conversion.vocabulary(short)


def test_without_a_network_the_vocabulary_must_be_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreachable(*_: Any, **__: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr(conversion, "snapshot_download", unreachable)
    with pytest.raises(CheckpointError, match=r"bert-base-uncased.*--vocab.*--tokenizer"):
        conversion.vocabulary(None)


@pytest.mark.parametrize("size", [0, -16, 8, 70, 10**9])
def test_an_image_size_that_cannot_be_is_refused(
    imported_folders: dict[str, Path], size: int
) -> None:
    with pytest.raises(CheckpointError, match=f"image size of {size} was asked for"):
        checkpoint.read(imported_folders["decoder"], image_size=size)
