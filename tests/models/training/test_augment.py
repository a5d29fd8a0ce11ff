"""Augmentation: chance from the seed alone, the paper's amounts, nothing where all is off."""

import math
import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from models.blip.preprocess import Preprocess
from models.training.augment import OPERATIONS, Augment, _draw_crop
from models.training.config import AugmentConfig

OFF = AugmentConfig(crop=None, flip=0, operations=0)
SHAPES = [(90, 31), (33, 200), (48, 48), (1, 300)]
GREY = 128


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def smooth(width: int, height: int) -> Image.Image:
    """Make a picture whose red grows to the right and whose green grows downwards."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x, y, np.full_like(x, 7)], axis=-1).astype(np.uint8))


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("shape", SHAPES)
def test_with_everything_off_it_is_the_plain_resize(shape: tuple[int, int]) -> None:
    preprocess = Preprocess(24, 40)
    augment = Augment(preprocess, OFF)
    for seed in range(5):
        found = augment(picture(*shape), seed)
        assert found.dtype == torch.uint8
        assert torch.equal(found, preprocess.resize(picture(*shape)))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_seed_fixes_the_result_and_another_changes_it(shape: tuple[int, int]) -> None:
    augment = Augment(Preprocess(32, 24), AugmentConfig())
    first = [augment(picture(*shape), seed) for seed in range(30)]
    random.seed(99)  # the library's own generator must not matter
    again = [augment(picture(*shape), seed) for seed in range(30)]
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert all(one.shape == (3, 32, 24) and one.dtype == torch.uint8 for one in first)
    assert len({one.numpy().tobytes() for one in first}) > 10  # of long ones, the crop stays


def test_it_leaves_the_picture_alone() -> None:
    image = picture(50, 40)
    before = image.tobytes()
    for seed in range(20):
        Augment(Preprocess(32, 32), AugmentConfig(magnitude=9))(image, seed)
    assert image.tobytes() == before


@pytest.mark.parametrize("flip", [0.0, 0.3, 1.0])
def test_a_picture_is_mirrored_as_often_as_asked(flip: float) -> None:
    augment = Augment(Preprocess(16, 16), AugmentConfig(crop=None, flip=flip, operations=0))
    image = picture(16, 16)
    plain, mirrored = (Preprocess(16, 16).resize(one) for one in (image, ImageOps.mirror(image)))
    found = [augment(image, seed) for seed in range(1_000)]
    count = sum(torch.equal(one, mirrored) for one in found)
    assert count + sum(torch.equal(one, plain) for one in found) == len(found)
    assert count / len(found) == pytest.approx(flip, abs=4 * math.sqrt(flip * (1 - flip) / 1_000))


@settings(deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    least=st.floats(0.05, 1),
    more=st.floats(0, 1),
    seed=st.integers(0, 2**63 - 1),
)
def test_a_crop_lies_inside_the_picture(
    width: int, height: int, least: float, more: float, seed: int
) -> None:
    share = (least, least + (1 - least) * more)
    left, top, right, bottom = _draw_crop(width, height, share, random.Random(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_crops_have_the_areas_aspects_and_places_that_were_asked_for() -> None:
    width, height, share = 1_000, 1_000, (0.2, 0.5)
    boxes = [_draw_crop(width, height, share, random.Random(seed)) for seed in range(2_000)]
    areas = [(r - x) * (b - y) / (width * height) for x, y, r, b in boxes]
    aspects = [(r - x) / (b - y) for x, y, r, b in boxes]
    assert 0.199 < min(areas) < 0.21
    assert 0.49 < max(areas) < 0.501
    assert np.mean(areas) == pytest.approx(0.35, abs=0.01)  # even between the two
    assert 0.749 < min(aspects) < 0.76
    assert 1.32 < max(aspects) < 1.335
    assert np.mean(np.log(aspects)) == pytest.approx(0, abs=0.02)
    for edge, most in ((0, width), (1, height)):
        starts = [box[edge] / (most - (box[edge + 2] - box[edge])) for box in boxes]
        assert np.mean(starts) == pytest.approx(0.5, abs=0.03)
        assert min(starts) < 0.01
        assert max(starts) > 0.99


@pytest.mark.parametrize(("width", "height"), [(4_000, 100), (100, 4_000)])
def test_a_picture_too_long_for_the_crop_is_cut_in_the_middle(width: int, height: int) -> None:
    left, top, right, bottom = _draw_crop(width, height, (0.9, 1.0), random.Random(0))
    assert sorted((right - left, bottom - top)) == [100, 133]
    assert left == (width - right + left) // 2
    assert top == (height - bottom + top) // 2


def test_the_crop_is_what_is_seen() -> None:
    """A crop is cut out before it is resized, as in the original: no pixel comes from outside."""
    image, preprocess = picture(120, 80), Preprocess(32, 32)
    config = AugmentConfig(crop=(0.2, 0.6), flip=0, operations=0)
    for seed in range(20):
        box = _draw_crop(120, 80, (0.2, 0.6), random.Random(seed))
        expected = preprocess.resize(
            Image.fromarray(np.asarray(image)[box[1] : box[3], box[0] : box[2]])
        )
        assert torch.equal(Augment(preprocess, config)(image, seed), expected)


def test_all_ten_operations_are_drawn_equally_and_each_is_done_half_the_time() -> None:
    image = ImageOps.posterize(picture(40, 40), 6).point(lambda value: value // 2 + 20)
    preprocess = Preprocess(40, 40)
    plain = preprocess.resize(image)
    outcomes: Counter[bytes] = Counter()
    for level_of, sign in [(name, sign) for name in OPERATIONS for sign in (0, 1)]:
        done = OPERATIONS[level_of](image, 9, random.Random(sign))
        outcomes[preprocess.resize(done).numpy().tobytes()] = 0
    augment = Augment(preprocess, AugmentConfig(crop=None, flip=0, operations=1, magnitude=9))
    trials = 4_000
    for seed in range(trials):
        outcomes[augment(image, seed).numpy().tobytes()] += 1
    signed = {"TranslateX", "TranslateY", "Rotate", "ShearX", "ShearY"}
    assert len(outcomes) == 5 + 2 * len(signed)  # each sign once: seeds 0 and 1 differ in it
    unchanged = outcomes.pop(plain.numpy().tobytes())
    assert unchanged / trials == pytest.approx(0.5 + 0.05, abs=0.035)
    for count in outcomes.values():
        share = count / trials
        assert share == pytest.approx(0.05, abs=0.015) or share == pytest.approx(0.025, abs=0.012)


def test_two_operations_follow_each_other() -> None:
    image, preprocess = smooth(60, 60), Preprocess(60, 60)
    augment = Augment(preprocess, AugmentConfig(crop=None, flip=0, operations=2, magnitude=10))
    both = 0
    for seed in range(400):
        found = augment(image, seed).numpy()
        right, down = found[0][30], found[1][:, 30]  # of the middle row and column
        both += (GREY in (right[0], right[-1])) and (GREY in (down[0], down[-1]))
    assert both > 0  # moved along both axes


def levels(name: str, level: int, image: Image.Image) -> set[bytes]:
    return {OPERATIONS[name](image, level, random.Random(seed)).tobytes() for seed in range(20)}


@pytest.mark.parametrize("level", [0, 3, 5, 10])
def test_translations_are_level_pixels_either_way_over_grey(level: int) -> None:
    image = picture(30, 30)
    for name, axis in (("TranslateX", 1), ("TranslateY", 0)):
        expected = set()
        for step in (level, -level):
            moved = np.roll(np.asarray(image), step, axis)
            empty = [slice(None), slice(None)]
            empty[axis] = slice(0, step) if step >= 0 else slice(step, None)
            moved[tuple(empty)] = GREY
            expected.add(moved.tobytes())
        assert levels(name, level, image) == expected


@pytest.mark.parametrize("level", [3, 5, 10])
def test_shears_lean_by_their_slope_from_the_first_row(level: int) -> None:
    """Compare with the place that each pixel comes from, in a picture that shows places."""
    image, slope = smooth(200, 100), level / 10 * 0.3
    for name, channel in (("ShearX", 0), ("ShearY", 1)):
        signs = set()
        for seed in range(20):
            found = array(OPERATIONS[name](image, level, random.Random(seed)))
            y, x = np.mgrid[0:100, 0:200]
            along, across = (x, y) if channel == 0 else (y, x)
            fitting = []
            for sign in (-1, 1):
                source = along + sign * slope * (across + 0.5)  # middles of pixels
                inside = (source > 1) & (source < (198 if channel == 0 else 98))
                error = np.abs(found[..., channel] - source)[inside]
                far = (source < -1) | (source > (201 if channel == 0 else 101))
                if error.max() <= 1.2 and (found[far] == GREY).all():
                    fitting.append(sign)
            assert len(fitting) == 1
            signs |= set(fitting)
        assert signs == {-1, 1}


def test_rotation_is_three_degrees_a_level_about_the_middle() -> None:
    image = smooth(101, 101)
    for level in (2, 5, 10):
        turn = math.radians(level / 10 * 30)
        signs = set()
        for seed in range(20):
            found = array(OPERATIONS["Rotate"](image, level, random.Random(seed)))
            y, x = np.mgrid[0:101, 0:101] - 50
            near = x**2 + y**2 < 45**2
            fitting = []
            for sign in (-1, 1):
                from_x = 50 + x * math.cos(turn) - sign * y * math.sin(turn)
                from_y = 50 + sign * x * math.sin(turn) + y * math.cos(turn)
                error = np.abs(found[..., 0] - from_x) + np.abs(found[..., 1] - from_y)
                fitting += [sign] if error[near].max() <= 2 else []
            assert len(fitting) == 1
            signs |= set(fitting)
        assert signs == {-1, 1}
        assert (found[0, 0] == GREY).all() == (level > 0)


@pytest.mark.parametrize("level", [0, 2, 5, 10])
def test_brightness_and_sharpness_scale_from_a_tenth_to_nearly_twice(level: int) -> None:
    factor = level / 10 * 1.8 + 0.1
    image = picture(20, 20)
    pixels = np.asarray(image).astype(float)
    (bright,) = levels("Brightness", level, image)
    found = np.frombuffer(bright, np.uint8).reshape(pixels.shape)
    assert np.abs(found - np.clip(pixels * factor, 0, 255)).max() <= 1
    (sharp,) = levels("Sharpness", level, image)
    found = np.frombuffer(sharp, np.uint8).reshape(pixels.shape)[1:-1, 1:-1]
    blurred = np.zeros_like(pixels)[1:-1, 1:-1]
    for down in range(3):
        for across in range(3):
            weight = 5 if down == across == 1 else 1
            blurred += weight / 13 * pixels[down : down + 18, across : across + 18]
    expected = np.clip(blurred + factor * (pixels[1:-1, 1:-1] - blurred), 0, 255)
    assert np.abs(found - expected).max() <= 2
    if level == 5:
        assert bright == sharp == image.tobytes()  # the paper's magnitude changes neither


def test_autocontrast_and_equalize_spread_each_channel() -> None:
    image = smooth(60, 40).point(lambda value: value // 2 + 50)
    (found,) = levels("AutoContrast", 5, image)
    spread = np.frombuffer(found, np.uint8).reshape(40, 60, 3)
    assert [spread[..., c].min() for c in (0, 1)] == [0, 0]
    assert all(spread[..., c].max() >= 254 for c in (0, 1))  # Pillow rounds down
    (found,) = levels("Equalize", 5, image)
    equal = np.frombuffer(found, np.uint8).reshape(40, 60, 3)
    steps = np.diff(np.unique(equal[..., 0]).astype(int))
    assert set(steps[:-1]) <= {8, 9}  # 255 / 30: grey levels of equal frequency come to lie evenly
