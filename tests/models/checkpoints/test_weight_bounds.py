"""Bounds on weights: what costs more than it holds is refused, what torch writes is read."""

import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.checkpoints.weight_bounds import MOST_TENSORS, check_pickle, check_safetensors

# PROTO 2, a tuple, kept; then again and again the tuple of the last one with itself
DOUBLED = b"\x80\x02)q\x00" + b"".join(
    bytes((ord("h"), n, ord("h"), n, 0x86, ord("q"), n + 1)) for n in range(60)
)


def zipped(content: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", b"3\n")
    return buffer.getvalue()


def header(content: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(content) if length is None else length) + content


def many_names() -> bytes:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return json.dumps({f"t{number}": empty for number in range(MOST_TENSORS + 1)}).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header(b"{}", 10**12), "its header has 1000000000000 bytes"),
        (header(many_names()), f"names {MOST_TENSORS + 1} tensors"),
        (header(b"[" * 200_000), "recursion"),
        (header(b"{"), "Expecting property name"),
    ],
)
def test_a_header_has_a_size(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises((ValueError, RecursionError), match=message):
        check_safetensors(path)


@pytest.mark.parametrize("form", [bytes, zipped])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02" + b"(" * 5_000_000, "more than 500000 steps"),
        (DOUBLED + b"}h\x3bK\x01s.", "builds far more than it holds"),
        (b"\x80\x02c_codecs\nencode\n.", "asks for _codecs encode"),
        (b"\x80\x02cos\nsystem\n.", "asks for os system"),
        (b"\x80\x02", "exhausted before seeing STOP"),
    ],
)
def test_a_pickle_has_a_size(
    tmp_path: Path, form: Callable[[bytes], bytes], content: bytes, message: str
) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(form(content))
    with pytest.raises((ValueError, pickle.UnpicklingError), match=message):
        check_pickle(path)


def test_a_zip_holds_no_more_than_it_has(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(zipped(bytes(100 << 20), zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match="it is compressed"):
        check_pickle(path)
    path.write_bytes(zipped(bytes(17 << 20)))
    with pytest.raises(ValueError, match="its pickle has 17825792 bytes"):
        check_pickle(path)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(MOST_TENSORS + 1):
            archive.writestr(f"archive/data/{number}", b"")
    with pytest.raises(ValueError, match=f"{MOST_TENSORS + 1} members"):
        check_pickle(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b".")
        archive.writestr("ARCHIVE/DATA.PKL", b".")
    with pytest.raises(ValueError, match="two members of one name"):
        check_pickle(path)


@pytest.mark.parametrize("is_new", [True, False])
def test_what_training_saves_passes(tmp_path: Path, is_new: bool) -> None:
    model = OrderedDict((f"blocks.{number}.weight", torch.zeros(2)) for number in range(2000))
    moments = {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2)}
    betas = (0.9, 0.999)
    optimizer = {
        "state": dict.fromkeys(range(2000), moments),
        "param_groups": [{"lr": 1e-4, "betas": betas, "params": [n]} for n in range(2000)],
    }
    whole = {
        "model": model,
        "optimizer": optimizer,
        "config": {"vit": "base", "sizes": [1, 2.5, None, True]},
        "parameter": torch.nn.Parameter(torch.zeros(2)),
        "dtypes": [torch.float32, torch.bool],
        "half": torch.zeros(2, dtype=torch.bfloat16),
        "size": torch.Size([2]),
        "epoch": 3,
    }
    path = tmp_path / "model.pth"
    torch.save(whole, path, _use_new_zipfile_serialization=is_new)
    assert check_pickle(path) is is_new
    loaded = torch.load(path, weights_only=True)
    assert loaded["model"].keys() == model.keys()
