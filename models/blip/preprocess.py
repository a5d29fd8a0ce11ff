"""Pictures to pixels: resized on the CPU as bytes, normalised on the model's device.

Shapes: B images, H height, W width, in pixels.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_LEAST_STD = 1e-6
_BICUBIC = 3
_KERNELS = {2: "bilinear", _BICUBIC: "bicubic"}  # by PIL's numbers: those that torch has for bytes
_FIXED = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255}


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a picture becomes the input of a model; equal settings share one resized image."""

    height: int
    width: int
    mean: tuple[float, float, float] = _CLIP_MEAN
    std: tuple[float, float, float] = _CLIP_STD
    resample: int = _BICUBIC  # PIL's number

    @classmethod
    def read(cls, block: dict[str, Any], image_size: int) -> "Preprocess":
        """Read an image processor's JSON; missing keys mean BLIP's own values."""
        for name, expected in _FIXED.items():
            if block.get(name, expected) not in (expected, None):
                raise ValueError(f"{name} is {block[name]}; only {expected} is supported")
        size = block.get("size", image_size)
        if size not in (image_size, {"height": image_size, "width": image_size}):
            raise ValueError(f"the image size is {size}; the network takes {image_size} squared")
        mean = _three(block.get("image_mean", _CLIP_MEAN), "image_mean", 0)
        std = _three(block.get("image_std", _CLIP_STD), "image_std", _LEAST_STD)
        resample = Image.Resampling(block.get("resample", _BICUBIC))
        return cls(image_size, image_size, mean, std, int(resample))

    def to_dict(self) -> dict[str, Any]:
        """Write the content of a preprocessor_config.json."""
        return {
            "image_processor_type": "BlipImageProcessor",
            "size": {"height": self.height, "width": self.width},
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "resample": self.resample,
            "do_convert_rgb": True,
            **_FIXED,
        }

    def resize(
        self, image: Image.Image, read: Callable[[Image.Image], Tensor] | None = None
    ) -> Tensor:
        """Squash an RGB picture to uint8 (3, H, W), as BLIP does: the aspect is not kept.

        torch's kernel for bytes takes a third of the time of Pillow's, and rounds its weights
        coarser: few bytes differ, most of them by one. `read` gives the picture's bytes (H, W, 3 or
        more); what it gives behind the three colours is left out.
        """
        kernel = _KERNELS.get(self.resample)
        if kernel is None:
            image = image.resize((self.width, self.height), Image.Resampling(self.resample))
        # a batch of one by strides of `channels_last`: else torch lays out colour by colour, in
        # twice the time that NumPy takes
        pixels = (read or _copied)(image)[None].permute(0, 3, 1, 2)
        if kernel is not None:
            size = self.height, self.width
            pixels = interpolate(pixels, size, mode=kernel, antialias=True)
        return torch.from_numpy(np.ascontiguousarray(pixels[0, :3].numpy()))

    def normalise(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """Turn uint8 (B, 3, H, W) into normalised pixels on the images' device."""
        mean, std = (
            torch.tensor(values).to(images.device, non_blocking=True).view(3, 1, 1)
            for values in (self.mean, self.std)
        )
        return images.float().div_(255).sub_(mean).div_(std).to(dtype)


def _copied(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image, dtype=np.uint8))


def _three(values: Iterable[float], name: str, least: float) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    if not all(least <= value <= 1 for value in (red, green, blue)):  # NaN is not
        raise ValueError(f"{name} is {[red, green, blue]}; expected numbers from {least} to 1")
    return red, green, blue
