"""Draw where a model looks: the picture, then the picture again under a heat map for each word."""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from models.roles.attention_explainer import WordMaps
from pipeline.media.sheet import sheet, small

MOST_WORDS = 59  # with the picture itself, twelve rows of five
_HEAT = 0.7  # share of colour where a map is at its highest


@dataclass(frozen=True, slots=True)
class AttentionOverlay:
    """A PNG, and the words it shows; `left_out` counts those it had no room for."""

    png: bytes
    words: list[str]
    left_out: int


def overlay(picture: Image.Image, attention: WordMaps) -> AttentionOverlay:
    """Draw the grid: the picture under the mean of all maps, then one cell for each word."""
    words, maps = attention.words[:MOST_WORDS], _numbers(attention.maps[:MOST_WORDS])
    thumbnail = small(picture)
    head = f"all words ({attention.score:.2f})"
    cells = [("picture", thumbnail), (head, heat(thumbnail, _numbers(attention.mean)))]
    cells += [(word, heat(thumbnail, m)) for word, m in zip(words, maps, strict=True)]
    return AttentionOverlay(sheet(cells), words, len(attention.words) - len(words))


def heat(picture: Image.Image, values: np.ndarray) -> Image.Image:
    """Colour a picture by a map (rows, columns), stretched over it; a map of zeros leaves it."""
    import matplotlib as mpl

    highest = float(values.max(initial=0))
    if highest <= 0:
        return picture.copy()
    stretched = Image.fromarray(np.float32(values / highest)).resize(
        picture.size, Image.Resampling.BICUBIC
    )
    level = np.clip(np.asarray(stretched), 0, 1)  # (H, W)
    colours = mpl.colormaps["inferno"](level)[..., :3] * 255
    share = _HEAT * level[..., None]
    # grey where nothing is hot, so that the picture's own colours are not taken for heat
    grey = np.asarray(picture.convert("L").convert("RGB"), dtype=np.float64)
    return Image.fromarray(np.uint8((1 - share) * grey + share * colours))


def _numbers(maps: Tensor) -> np.ndarray:
    return np.nan_to_num(maps.float().numpy(), nan=0, posinf=0, neginf=0)
