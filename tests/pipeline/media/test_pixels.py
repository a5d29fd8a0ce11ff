"""A picture's pixels are seen where they stand, and copied only where they stand in parts."""

import numpy as np
import pytest
from PIL import Image

from models.blip.preprocess import Preprocess
from pipeline.media.pixels import pixels_of


def noise(width: int, height: int) -> Image.Image:
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(50, 30), (1, 7), (4097, 1024)])  # the last: over 16 MiB
def test_pixels_are_those_of_the_picture(size: tuple[int, int]) -> None:
    image = noise(*size)
    assert np.array_equal(pixels_of(image)[..., :3].numpy(), np.asarray(image))


def test_nothing_is_copied() -> None:
    image = noise(50, 30)
    pixels = pixels_of(image)
    image.putpixel((3, 2), (1, 2, 3))
    assert pixels[2, 3, :3].tolist() == [1, 2, 3]


def test_the_memory_outlives_its_picture() -> None:
    pixels = pixels_of(noise(50, 30))
    others = [noise(50, 30).point(lambda level: level // 2) for _ in range(8)]
    assert np.array_equal(pixels[..., :3].numpy(), np.asarray(noise(50, 30)))
    assert len(others) == 8


@pytest.mark.parametrize("resample", [1, 2, 3])  # 1: a filter that torch has not for bytes
@pytest.mark.parametrize("size", [(480, 360), (361, 480), (90, 31), (64, 48), (4097, 1024)])
def test_resized_bytes_are_those_of_a_copy(size: tuple[int, int], resample: int) -> None:
    image, way = noise(*size), Preprocess(48, 64, resample=resample)
    found = way.resize(image, pixels_of)
    assert found.is_contiguous()
    assert np.array_equal(found.numpy(), way.resize(image).numpy())
