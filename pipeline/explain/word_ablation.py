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
        """Give the places of the words that sink the match most, the worst first."""
        places = [n for n, word in enumerate(self.words) if word.sinks]
        return sorted(places, key=lambda n: self.words[n].effect)[:most]

    def best(self, most: int) -> list[int]:
        """Give the places of the words that raise the match most, the best first."""
        return sorted(range(len(self.words)), key=lambda n: -self.words[n].effect)[:most]


def ablate_words(attender: AttentionExplainer, picture: Image.Image, text: str) -> WordAblation:
    """Judge a text, and say what each of its words does to the match."""
    found = attender.effects(attender.preprocess.resize(picture), text)
    words = [
        AblatedWord(word, effect) for word, effect in zip(found.words, found.effects, strict=True)
    ]
    return WordAblation(found.itm, found.itm_logit, words)


def attention_of(
    attender: AttentionExplainer, picture: Image.Image, text: str, places: Sequence[int]
) -> list[Image.Image]:
    """Draw where a filter looks for some words of a text (Grad-CAM), by their places in it."""
    if not places:
        return []
    found = attender.match(attender.preprocess.resize(picture), text)
    shown = small(picture)
    return [heat(shown, found.maps[place].numpy()) for place in places]
