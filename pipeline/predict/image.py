"""What the models can do with a picture, for people and programs: caption, match, ask, reason.

Each takes a loaded model and pictures as `pipeline.media.pictures` reads them, and returns plain
results.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from PIL import Image

from models.blip.preprocess import Preprocess
from models.roles.captioner import BlipCaptioner, Caption
from models.roles.dialogue import DialogueRanker
from models.roles.filter import Filter
from models.roles.nlvr import NlvrModel
from models.roles.vqa import VqaModel
from models.training.dialogue import Dialogue
from pipeline.media.pictures import UserPicture

CLASSES_TEMPERATURE = 0.07  # ITC's where training starts: a filter's folder does not keep its own


@dataclass(frozen=True, slots=True)
class ImageCaptions:
    """A picture and what a captioner wrote; without captions, it could not be read."""

    picture: UserPicture
    captions: list[Caption]


@dataclass(frozen=True, slots=True)
class TextMatch:
    """How well a text fits a picture: ITM's probability, ITC's cosine, and a share of all texts.

    `share`: softmax of the cosines over the texts of one call, a zero-shot classifier's.
    """

    text: str
    itm: float
    itc: float
    share: float


@dataclass(frozen=True, slots=True)
class ImageAnswer:
    """An answer and the mean log-probability of its tokens, or its score among ranked answers."""

    text: str
    score: float


def caption(
    captioner: BlipCaptioner, pictures: Iterable[UserPicture], count: int = 1, batch_size: int = 8
) -> Iterator[ImageCaptions]:
    """Caption pictures in their order, `batch_size` at a time."""
    rest = iter(pictures)
    while batch := list(islice(rest, batch_size)):
        usable = [(p, p.image) for p in batch if p.image is not None]
        written: Iterator[list[Caption]] = iter(())
        if usable:
            pixels = stack_pixels(captioner.preprocess, [image for _, image in usable])
            written = iter(captioner.caption(pixels, [p.name for p, _ in usable], count))
        for picture in batch:
            yield ImageCaptions(picture, next(written) if picture.image is not None else [])


def match(scorer: Filter, image: Image.Image, texts: Sequence[str]) -> list[TextMatch]:
    """Score texts against a picture, in their order."""
    (scores,) = scorer.score(stack_pixels(scorer.preprocess, [image]), [texts])
    cosines = torch.tensor([score.itc for score in scores])
    shares = (cosines / CLASSES_TEMPERATURE).softmax(0).tolist()
    return [
        TextMatch(text, score.itm, score.itc, share)
        for text, score, share in zip(texts, scores, shares, strict=True)
    ]


def ask(
    answerer: VqaModel, image: Image.Image, question: str, answers: Sequence[str] = ()
) -> list[ImageAnswer]:
    """Answer a question about a picture: in own words, or by ranking `answers`, best first."""
    return answer(answerer, stack_pixels(answerer.preprocess, [image]), question, answers)


def answer(
    answerer: VqaModel, pixels: torch.Tensor, question: str, answers: Sequence[str]
) -> list[ImageAnswer]:
    """Answer as `ask`, about one picture (1, 3, H, W) or video (1, F, 3, H, W), uint8."""
    if not answers:
        (written,) = answerer.answer(pixels, [question])
        return [ImageAnswer(written.text, written.logprob)]
    (ranked,) = answerer.rank(pixels, [question], answers)
    return [ImageAnswer(candidate.text, candidate.score) for candidate in ranked]


def converse(
    ranker: DialogueRanker, image: Image.Image, dialogue: Dialogue, answers: Sequence[str]
) -> list[ImageAnswer]:
    """Rank answers to the last question of a dialogue about a picture, best first."""
    pixels = stack_pixels(ranker.preprocess, [image])
    (ranked,) = ranker.rank(pixels, [dialogue], [answers])
    return [ImageAnswer(candidate.text, candidate.score) for candidate in ranked]


def reason(reasoner: NlvrModel, left: Image.Image, right: Image.Image, statement: str) -> float:
    """Compute the probability that a statement is true of two pictures."""
    sides = [stack_pixels(reasoner.preprocess, [image]) for image in (left, right)]
    (probability,) = reasoner.reason(sides[0], sides[1], [statement])
    return probability


def stack_pixels(preprocess: Preprocess, images: Sequence[Image.Image]) -> torch.Tensor:
    """Resize pictures: uint8 (B, 3, H, W)."""
    return torch.stack([preprocess.resize(image) for image in images])
