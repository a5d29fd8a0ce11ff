"""Pictures and videos to states, by a vision tower as it is or made faster for its machine.

Shapes: B images or videos, F frames, H, W in pixels, P states of one picture, V their width.
"""

import gc
import logging
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.blip.preprocess import Preprocess
from models.blip.vision import VisionTower

_log = logging.getLogger(__name__)
_INT8_ENGINE = "onednn"  # 1.3 times as fast as the others where they were measured

See = Callable[[Tensor], Tensor]


class ImageEncoder:
    """A tower and how pictures are made ready for it."""

    def __init__(self, tower: VisionTower, preprocess: Preprocess) -> None:
        self._tower, self._preprocess = tower, preprocess
        self._fast: See | None = None
        self._warm = False
        self._one_by_one = False

    def __call__(self, pictures: Tensor) -> Tensor:
        """Compute the states of images (B, 3, H, W) or videos (B, F, 3, H, W), uint8.

        The frames of a video stand one after the other, each with its class token: (B, F * P, V),
        as BLIP concatenates them (BLIP §5.6); F is 1 for an image.
        """
        frames = pictures.flatten(0, 1) if pictures.dim() == 5 else pictures
        frames = frames.to(self._tower.post_layernorm.weight.device, non_blocking=True)
        states = self._see_fast(frames)
        if states is None:
            states = self._see(frames)
        return states.reshape(len(pictures), -1, states.shape[-1])

    def compile(self, compiler: Callable[[See], See] = torch.compile) -> None:
        """See faster after a first batch that takes a minute: for a long run on a GPU.

        A size of batches that comes later takes it once more. Where compiling fails, it is told,
        and pictures are seen as before.
        """
        self._fast, self._warm = compiler(self._see), False

    @property
    def is_compiled(self) -> bool:
        """Whether pictures are seen by a compiled tower, as far as is known."""
        return self._fast is not None

    def quantise(self) -> None:
        """Compute the tower's products in int8, on a CPU: weights once, states as they come.

        The parameters lose their names: for reading alone, not for saving. Pictures are seen one by
        one from now on: the states of a batch share one scale, by which one picture would change
        what is seen of another.
        """
        self._one_by_one = True
        engine = torch.backends.quantized.engine
        torch.backends.quantized.engine = _INT8_ENGINE
        try:
            with warnings.catch_warnings():  # it will move to another package, torchao
                warnings.simplefilter("ignore")
                torch.ao.quantization.quantize_dynamic(
                    self._tower.encoder, {nn.Linear}, torch.qint8, inplace=True
                )
        finally:
            torch.backends.quantized.engine = engine
        gc.collect()  # the layers that were replaced refer to themselves, and hold their weights

    def _see(self, frames: Tensor) -> Tensor:
        """Compute the states (B * F, P, V) of uint8 frames on the tower's device."""
        dtype = self._tower.post_layernorm.weight.dtype
        pixels = self._preprocess.normalise(frames, dtype)
        if self._one_by_one and len(pixels) > 1:
            return torch.cat([self._tower(picture) for picture in pixels.split(1)])
        return self._tower(pixels)

    def _see_fast(self, frames: Tensor) -> Tensor | None:
        if self._fast is None:
            return None
        begun = time.monotonic()
        try:
            states = self._fast(frames)
        except torch.OutOfMemoryError:
            raise  # of the batch; smaller ones may do
        except Exception as error:  # compilers raise anything, and what they miss is told here
            self._fast = None
            _log.warning(
                "the vision tower cannot be compiled, and is run as it is, which is slower: %s",
                str(error).strip().split("\n")[0],
            )
            return None
        if not self._warm:
            self._warm = True
            _log.info("the vision tower was compiled in %.0f s", time.monotonic() - begun)
        return states
