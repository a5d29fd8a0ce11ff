"""Reading weights: several forms, nothing run, everything that does not fit listed."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.checkpoints import weights
from models.checkpoints.locate import CheckpointError
from models.checkpoints.weights import arrange, read_tensors


class Bomb:
    """Its unpickling makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "made"
    torch.save({"x": Bomb(target)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=", and was not loaded: it could run code"):
        read_tensors(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(target)))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        read_tensors(tmp_path)
    assert not target.exists()


def test_all_forms_give_the_same_tensors(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}
    for form in ("safe", "pickle", "shards"):
        (tmp_path / form).mkdir()
    save_file(tensors, tmp_path / "safe/model.safetensors")
    torch.save(tensors, tmp_path / "pickle/pytorch_model.bin")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    for key, name in names.items():
        save_file({key: tensors[key]}, tmp_path / "shards" / name)
    index = tmp_path / "shards/model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    for form in ("safe", "pickle", "shards"):
        found = read_tensors(tmp_path / form)
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/secret", "sub/a.safetensors"])
def test_an_index_cannot_lead_out_of_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match="outside its folder"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_damaged_weights_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x00" * 100)
    with pytest.raises(CheckpointError, match=name):
        read_tensors(tmp_path)


def test_no_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_tensors(tmp_path)


def test_one_error_lists_all_that_does_not_fit() -> None:
    tensors = {
        "kept": torch.zeros(2),
        "bent": torch.zeros(3),
        "whole": torch.zeros(1, dtype=torch.int64),
        "extra": torch.zeros(1),
        "x.embeddings.position_ids": torch.zeros(1),
        "logit_scale": torch.zeros(()),
    }
    shapes = {"kept": (2,), "bent": (4,), "gone": (1,), "whole": (1,)}
    with pytest.raises(CheckpointError) as caught:
        arrange(tensors, shapes, Path("/folder"))
    text = str(caught.value)
    assert "/folder" in text
    assert "(problems: 4)" in text
    for line in (
        "missing gone",
        "unexpected extra",
        "bent has shape (3,); expected (4,)",
        "whole holds torch.int64; expected floating point",
    ):
        assert line in text
    assert "position_ids" not in text
    assert "logit_scale" not in text


def test_tied_tensors_may_come_under_either_name(parity: Path) -> None:
    tensors = load_file(parity / "hf/captioning/model.safetensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for second, first in weights.ALIASES.items():
        both = tensors | {second: tensors[first].clone()}
        other = {name: tensor for name, tensor in both.items() if name != first}
        for held in (both, other):
            found = arrange(held, shapes, parity)
            assert found.keys() == tensors.keys()
            assert torch.equal(found[first], tensors[first])
        with pytest.raises(CheckpointError, match="to which it is tied"):
            arrange(tensors | {second: tensors[first] + 1}, shapes, parity)
