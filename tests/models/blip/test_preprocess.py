"""Pixels are those of PIL and transformers, but for the rounding of the kernel that resizes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import BlipImageProcessorPil

from models.blip.preprocess import Preprocess


def resized_by_pillow(image: Image.Image, size: int) -> Tensor:
    """Resize as the original does, and as transformers does without torchvision."""
    resized = image.resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


def assert_close_bytes(found: Tensor, expected: Tensor) -> None:
    assert (found.dtype, found.shape) == (torch.uint8, expected.shape)
    assert found.is_contiguous()
    apart = (found.int() - expected.int()).abs()
    assert apart.max() <= 16  # of noise, in the last row and column
    assert apart.float().mean() < 0.5


@pytest.mark.parametrize("resample", Image.Resampling)
def test_every_filter_of_pillow_is_there(resample: Image.Resampling) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    found = Preprocess(48, 64, resample=int(resample)).resize(image)
    expected = np.asarray(image.resize((64, 48), resample)).transpose(2, 0, 1)
    apart = np.abs(found.numpy().astype(int) - expected)
    exact = resample not in (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR)
    assert apart.max() <= (0 if exact else 16)
    assert apart.mean() < 0.15


@pytest.mark.parametrize("resample", [2, 3])
def test_a_picture_of_the_size_wanted_stays_as_it_is(resample: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    found = Preprocess(48, 64, resample=resample).resize(Image.fromarray(pixels))
    assert torch.equal(found, torch.from_numpy(pixels).permute(2, 0, 1))


def test_pixels_equal_the_references(hf_values: dict[str, Tensor]) -> None:
    image = Image.fromarray(hf_values["in.raw_rgb_hwc_u8"].numpy())
    size = hf_values["out.processor_pixel_values"].shape[-1]
    ours = Preprocess(size, size)
    assert_close_bytes(ours.resize(image), resized_by_pillow(image, size))
    found = ours.normalise(resized_by_pillow(image, size)[None], torch.float32)
    for name in ("pil_bicubic", "processor"):
        expected = hf_values[f"out.{name}_pixel_values"]
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("shape", [(90, 31), (33, 200), (48, 48)])
def test_pixels_equal_transformers(parity: Path, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (*shape, 3), generator=generator, dtype=torch.uint8)
    image = Image.fromarray(pixels.numpy())
    theirs = BlipImageProcessorPil.from_pretrained(parity / "hf/captioning")
    size = theirs.size["height"]
    ours = Preprocess.read({"size": {"height": size, "width": size}}, size)
    assert_close_bytes(ours.resize(image), resized_by_pillow(image, size))
    found = ours.normalise(resized_by_pillow(image, size)[None], torch.float32)
    expected = theirs(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_written_settings_read_back_equal() -> None:
    ours = Preprocess(32, 32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 2)
    assert Preprocess.read(ours.to_dict(), 32) == ours
    assert hash(ours) == hash(Preprocess.read(ours.to_dict(), 32))
    assert Preprocess.read({}, 32) == Preprocess(32, 32)


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ({"size": {"height": 48, "width": 64}}, "the image size is"),
        ({"size": {"shortest_edge": 64}}, "the image size is"),
        ({"do_normalize": False}, "do_normalize is False"),
        ({"rescale_factor": 1.0}, "rescale_factor is 1.0"),
        ({"resample": 17}, "17 is not a valid"),
        ({"image_mean": [0.5]}, "not enough values"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(block: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Preprocess.read(block, 64)


def test_normalising_leaves_its_input_alone() -> None:
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    before = images.clone()
    assert Preprocess(8, 8).normalise(images, torch.bfloat16).dtype == torch.bfloat16
    assert torch.equal(images, before)
