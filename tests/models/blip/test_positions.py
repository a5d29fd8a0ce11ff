"""Positions for other image sizes, against the original's numbers."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.blip.positions import GRIDS, interpolate, interpolate_all, side
from models.checkpoints.original import read_original


def test_positions_equal_the_original(parity: Path) -> None:
    values = load_file(parity / "decoder.safetensors")
    own = read_original(parity / "decoder.pth")[GRIDS[0]]
    for name in ("out.big_pos_embed", "out.small_pos_embed_32"):
        grid = side(values[name].shape[1])
        torch.testing.assert_close(interpolate(own, grid), values[name], atol=3.4e-6, rtol=1e-5)


def test_the_same_size_changes_nothing() -> None:
    positions = torch.randn(1, 17, 8)
    assert interpolate(positions, 4) is positions


def test_the_class_token_and_the_axes_are_kept() -> None:
    rows = torch.arange(4.0).view(4, 1, 1).expand(4, 4, 2)  # every place holds its row's number
    positions = torch.cat([torch.full((1, 1, 2), 9.0), rows.reshape(1, 16, 2)], dim=1)
    found = interpolate(positions, 8)
    assert torch.equal(found[:, 0], positions[:, 0])
    picture = found[0, 1:].view(8, 8, 2)
    assert torch.allclose(picture, picture[:, :1].expand_as(picture))
    assert (picture[1:, 0, 0] > picture[:-1, 0, 0]).all()


def test_a_momentum_copy_is_stretched_too() -> None:
    tensors = {name: torch.randn(1, 5, 4) for name in GRIDS} | {"other": torch.randn(1, 5, 4)}
    found = interpolate_all(tensors, 3)
    assert [tuple(tensor.shape) for tensor in found.values()] == [(1, 10, 4), (1, 10, 4), (1, 5, 4)]


@pytest.mark.parametrize("places", [0, 1, 3, 16, 18])
def test_what_is_no_square_is_refused(places: int) -> None:
    with pytest.raises(ValueError, match=f"{places} positions are no square"):
        side(places)
