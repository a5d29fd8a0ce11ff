"""Which words sank a match? Each is hidden from the others in turn, and the match judged again."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from models.roles.attention_explainer import AttentionExplainer
from pipeline.explain.heatmap import heat
from pipeline.media.sheet import small

SINKING = -0.1  # an effect on the logit below it is more than rounding


@dataclass(frozen=True, slots=True)
class AblatedWord:
    """A word as the model reads it, and what it adds to the logit of the match."""

    text: str
    effect: float

    @property
    def sinks(self) -> bool:
        """Whether the text would fit better without it."""
        return self.effect < SINKING


@dataclass(frozen=True, slots=True)
class WordAblation:
    """A text's probability of a match and its logit, and its words in order."""

    itm: float
    itm_logit: float
    words: list[AblatedWord]

    def worst(self, most: int) -> list[int]:
        """Return the indices of the words that sink the match most, the worst first."""
        sinking = [n for n, word in enumerate(self.words) if word.sinks]
        return sorted(sinking, key=lambda n: self.words[n].effect)[:most]

    def best(self, most: int) -> list[int]:
        """Return the indices of the words that raise the match most, the best first."""
        return sorted(range(len(self.words)), key=lambda n: -self.words[n].effect)[:most]


def ablate_words(explainer: AttentionExplainer, picture: Image.Image, text: str) -> WordAblation:
    """Score a text, and measure what each of its words does to the match."""
    effects = explainer.effects(explainer.preprocess.resize(picture), text)
    words = [AblatedWord(*pair) for pair in zip(effects.words, effects.effects, strict=True)]
    return WordAblation(effects.itm, effects.itm_logit, words)


def draw_attention(
    explainer: AttentionExplainer, picture: Image.Image, text: str, indices: Sequence[int]
) -> list[Image.Image]:
    """Draw where a filter looks for some words of a text (Grad-CAM), by their indices in it."""
    if not indices:
        return []
    maps = explainer.match(explainer.preprocess.resize(picture), text).maps
    thumbnail = small(picture)
    return [heat(thumbnail, maps[index].numpy()) for index in indices]
