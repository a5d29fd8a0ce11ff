"""What the shared options mean."""

from pathlib import Path

import pytest
import torch
import typer

from flows.cli.options import device_of, local_path
from models.devices import DeviceError
from shards.errors import UsageError


def test_auto_is_a_gpu_only_where_there_is_one() -> None:
    assert device_of("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert device_of("cpu") == "cpu"


def test_a_device_that_torch_does_not_know_is_bad_usage() -> None:
    with pytest.raises(typer.BadParameter, match="--device tpuu: "):
        device_of("tpuu")


def test_a_path_of_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("~/a b") == tmp_path / "a b"
    assert local_path("a/~/b") == Path("a/~/b")
    assert local_path("$HOME") == local_path(Path("$HOME")) == Path("$HOME")
    with pytest.raises(typer.BadParameter, match="it is empty, and names no file or folder"):
        local_path("")
    with pytest.raises(UsageError, match=r"no user of that name"):
        local_path("~nobody-here/x")


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU here")
def test_a_gpu_that_torch_does_not_see_is_refused_by_name() -> None:
    with pytest.raises(DeviceError, match="a GPU is wanted, and torch sees none"):
        device_of("cuda:1")
