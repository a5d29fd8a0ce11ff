"""What the shared options mean."""

import pytest
import torch
import typer

from flows.cli.options import device_of


def test_auto_is_a_gpu_only_where_there_is_one() -> None:
    assert device_of("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert device_of("cpu") == "cpu"
    assert device_of("cuda:1") == "cuda:1"


def test_a_device_that_torch_does_not_know_is_bad_usage() -> None:
    with pytest.raises(typer.BadParameter, match="--device tpuu: "):
        device_of("tpuu")
