"""Pictures for training: a random crop, a flip, and BLIP's own RandAugment, by Pillow alone.

BLIP took RandAugment from ALBEF: each drawn operation is applied with probability one half, and a
translation is in pixels of the resized picture. At its magnitude, 5 of 10, the factor of
brightness and sharpness is 1: both leave the picture as it is, in BLIP as here.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from models.blip.preprocess import Preprocess
from models.training.config import LEVELS, AugmentConfig

_RATIOS = (3 / 4, 4 / 3)  # width to height of a crop
_TRIES = 10  # to draw a crop that lies within the picture
_APPLIED = 0.5  # probability of a drawn operation
_SHEAR = 0.3
_TRANSLATE_PIXELS = 10.0
_ROTATE_DEGREES = 30.0
_FILL = (128, 128, 128)

Operation = Callable[[Image.Image, int, random.Random], Image.Image]


@dataclass(frozen=True, slots=True)
class Augment:
    """Turns a picture into a varied input of a model; the same seed gives the same bytes."""

    preprocess: Preprocess
    config: AugmentConfig

    def __call__(self, image: Image.Image, seed: int) -> Tensor:
        """Vary an RGB picture and resize it to uint8 (3, H, W)."""
        draw = random.Random(seed)
        if self.config.crop is not None:
            image = image.crop(_draw_crop(image.width, image.height, self.config.crop, draw))
        size = (self.preprocess.width, self.preprocess.height)
        image = image.resize(size, Image.Resampling(self.preprocess.resample))
        if draw.random() < self.config.flip:
            image = ImageOps.mirror(image)
        for operation in draw.choices(list(OPERATIONS.values()), k=self.config.operations):
            if draw.random() < _APPLIED:
                image = operation(image, self.config.magnitude, draw)
        return self.preprocess.resize(image)  # of this size already: the bytes stay


def _draw_crop(
    width: int, height: int, shares: tuple[float, float], draw: random.Random
) -> tuple[int, int, int, int]:
    """Draw left, top, right and bottom as torchvision's RandomResizedCrop does."""
    for _ in range(_TRIES):
        area = width * height * draw.uniform(*shares)
        ratio = math.exp(draw.uniform(math.log(_RATIOS[0]), math.log(_RATIOS[1])))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left, top = draw.randint(0, width - across), draw.randint(0, height - down)
            return left, top, left + across, top + down
    # a long or tiny picture: its middle, as large as the ratios allow
    across = max(1, min(width, round(height * _RATIOS[1])))
    down = max(1, min(height, round(width / _RATIOS[0])))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def _factor(level: int) -> float:
    return level / LEVELS * 1.8 + 0.1


def _signed(level: int, strongest: float, draw: random.Random) -> float:
    return level / LEVELS * strongest * draw.choice((-1, 1))


def _affine(image: Image.Image, inverse: tuple[float, ...]) -> Image.Image:
    """Move pixels; the six numbers lead from the new picture's places to the old one's."""
    affine, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    return image.transform(image.size, affine, inverse, bilinear, fillcolor=_FILL)


OPERATIONS: dict[str, Operation] = {
    "Identity": lambda image, _level, _draw: image,
    "AutoContrast": lambda image, _level, _draw: ImageOps.autocontrast(image),
    "Equalize": lambda image, _level, _draw: ImageOps.equalize(image),
    "Brightness": lambda image, level, _: ImageEnhance.Brightness(image).enhance(_factor(level)),
    "Sharpness": lambda image, level, _: ImageEnhance.Sharpness(image).enhance(_factor(level)),
    "TranslateX": lambda image, level, draw: _affine(
        image, (1, 0, _signed(level, _TRANSLATE_PIXELS, draw), 0, 1, 0)
    ),
    "TranslateY": lambda image, level, draw: _affine(
        image, (1, 0, 0, 0, 1, _signed(level, _TRANSLATE_PIXELS, draw))
    ),
    "Rotate": lambda image, level, draw: image.rotate(
        _signed(level, _ROTATE_DEGREES, draw), Image.Resampling.BILINEAR, fillcolor=_FILL
    ),
    "ShearX": lambda image, level, draw: _affine(
        image, (1, _signed(level, _SHEAR, draw), 0, 0, 1, 0)
    ),
    "ShearY": lambda image, level, draw: _affine(
        image, (1, 0, 0, _signed(level, _SHEAR, draw), 1, 0)
    ),
}
