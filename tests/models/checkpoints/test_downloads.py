"""Checkpoints as downloads and editors leave them: read where all is there, or named."""

import codecs
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.blip import tokenizer as tokenizers
from models.checkpoints.checkpoint import info, read
from models.checkpoints.conversion import vocabulary
from models.checkpoints.layout import read_stated
from models.checkpoints.locate import CheckpointError
from models.checkpoints.original import read_original

WEIGHTS = "model.safetensors"
POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
PAGES = (
    b"<!DOCTYPE html><html><body>404</body></html>",
    codecs.BOM_UTF8 + b"\n <html lang=en>Sign in",
    b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
)


@pytest.mark.parametrize(
    "name", [WEIGHTS, "config.json", "tokenizer.json", "preprocessor_config.json"]
)
def test_a_pointer_of_git_lfs_is_named(copy: Path, name: str) -> None:
    (copy / name).write_bytes(POINTER)
    with pytest.raises(CheckpointError, match=rf"{name} is a pointer of Git LFS") as caught:
        info(copy)
    assert "git lfs pull" in str(caught.value)
    assert str(caught.value).count(str(copy / name)) == 1


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "vocab.txt", "model.safetensors.index.json", "model-1.safetensors"],
)
def test_pointers_in_other_forms_of_a_folder(copy: Path, name: str) -> None:
    replaced = {"vocab.txt": "tokenizer.json"}.get(name, WEIGHTS)
    if name == "model-1.safetensors":
        index = {"weight_map": {"a": name}}
        (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    (copy / replaced).unlink()
    (copy / name).write_bytes(POINTER)
    with pytest.raises(CheckpointError, match=rf"{name} is a pointer of Git LFS.*git lfs pull"):
        info(copy)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", [WEIGHTS, "pytorch_model.bin", "config.json"])
def test_a_web_page_in_the_place_of_a_file_is_named(copy: Path, name: str, page: bytes) -> None:
    if name == "pytorch_model.bin":
        (copy / WEIGHTS).unlink()
    (copy / name).write_bytes(page)
    with pytest.raises(CheckpointError, match=rf"{name} is a web page.*download the file again"):
        info(copy)


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, -1])
def test_cut_safetensors_are_named(copy: Path, kept: float) -> None:
    data = (copy / WEIGHTS).read_bytes()
    whole = len(data)
    data = data[: int(kept * whole) if isinstance(kept, float) else kept]
    (copy / WEIGHTS).write_bytes(data)
    expected = "it is empty" if not data else f"it is cut: it has {len(data):,} of "
    with pytest.raises(CheckpointError, match=rf"{WEIGHTS}.*{expected}.*download it again") as told:
        info(copy)
    if len(data) > whole // 3:  # the header is there
        assert f" of {whole:,} bytes" in str(told.value)


@pytest.mark.parametrize("kept", [0, 1000, -1])
def test_cut_pickles_are_named(copy: Path, kept: int) -> None:
    torch.save(load_file(copy / WEIGHTS), copy / "pytorch_model.bin")
    (copy / WEIGHTS).unlink()
    data = (copy / "pytorch_model.bin").read_bytes()[:kept]
    (copy / "pytorch_model.bin").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"it is (cut|empty).*download it again"):
        info(copy)


def test_parts_that_an_index_names_and_are_not_there(copy: Path) -> None:
    names = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    index = {"weight_map": dict(zip("abc", names, strict=True))}
    (copy / WEIGHTS).rename(copy / names[1])
    with pytest.raises(CheckpointError, match=rf"no weights; .*; there are {names[1]}$"):
        info(copy)  # an index is missing as well
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    missing = rf"names 3 files of weights; 2 of them are not there: {names[0]}, {names[2]}\. Fetch"
    with pytest.raises(CheckpointError, match=missing):
        info(copy)


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json"])
def test_a_folder_in_the_place_of_a_file(copy: Path, name: str) -> None:
    (copy / name).unlink()
    (copy / name).mkdir()
    with pytest.raises(CheckpointError, match=rf"it is a folder; expected a file.*{name}"):
        info(copy)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "preprocessor_config.json"])
def test_byte_order_marks_and_line_ends_of_windows_are_read(copy: Path, name: str) -> None:
    before = read(copy)[0]
    text = (copy / name).read_text(encoding="utf-8").replace("\n", "\r\n")
    (copy / name).write_text(text, encoding="utf-8-sig", newline="")
    after = read(copy)[0]
    assert after.config.to_dict() == before.config.to_dict()
    assert after.preprocess == before.preprocess
    assert after.tokenizer.encode(["a red square"]) == before.tokenizer.encode(["a red square"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_a_vocabulary_is_read_however_its_lines_end(
    tmp_path: Path, encoding: str, end: str, last: bool
) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "é"]
    path = tmp_path / "vocab.txt"
    path.write_bytes((end.join(words) + end * last).encode(encoding))
    read_words = vocabulary(path)
    assert read_words.pad_id == 0
    assert read_words.encode(["ab a"]) == [[5, 6, 5]]
    assert (read_words.size, tokenizers.extend(path).dec_id) == (len(words) + 2, len(words))


def test_a_stated_config_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"vision": {"num_heads": 2}}), encoding="utf-8-sig")
    assert read_stated(path)["vision"] == {"num_attention_heads": 2}


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "_orig_mod.", "module.model.", "net.", "a_b/"]
)
def test_what_a_wrapper_put_before_all_names_is_taken_away(copy: Path, prefix: str) -> None:
    before = info(copy)
    tensors = load_file(copy / WEIGHTS)
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, copy / WEIGHTS)
    assert info(copy) == before
    wrapped = {prefix + name: tensor for name, tensor in tensors.items()}
    del wrapped[next(iter(wrapped))]
    save_file(wrapped, copy / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"\(problems: 1\):\n  missing [a-z_]+\."):
        info(copy)


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("decoder", "module."), ("pretrain", "model."), ("nlvr", "_orig_mod.module."), ("itm", "n/")],
)
def test_originals_with_a_prefix_are_read(
    parity: Path, tmp_path: Path, name: str, prefix: str
) -> None:
    source = parity / f"{name}.pth"
    table = torch.load(source, weights_only=True)["model"]
    path = tmp_path / "model.pth"
    torch.save({"model": {prefix + key: tensor for key, tensor in table.items()}}, path)
    expected, found = read_original(source), read_original(path)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_file_of_weights_alone_is_no_original(copy: Path) -> None:
    with pytest.raises(CheckpointError, match=r"weights alone\. Give its folder"):
        read_original(copy / WEIGHTS)
