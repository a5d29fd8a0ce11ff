"""The pixels of a picture as a tensor, without a copy where Pillow lends its memory."""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor


def pixels_of(image: Image.Image) -> "Tensor":
    """View an RGB picture as uint8 (H, W, 4), with a byte of no meaning behind the three colours.

    The memory is Pillow's own, for reading alone. One that it holds in parts (of more than 16 MiB)
    is copied, to (H, W, 3).
    """
    import torch
    from torch.utils.dlpack import from_dlpack

    try:
        pixels = from_dlpack(pa.array(image).values)
    except ValueError:
        return torch.from_numpy(np.array(image))
    return pixels.view(image.height, image.width, -1)
