"""What the image models can say about a video: match texts, and answer questions."""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import torch
from PIL import Image

from models.blip.preprocess import Preprocess
from models.roles.retrieval import EncodedImages
from models.roles.video import VideoRetriever
from models.roles.vqa import VqaModel
from pipeline.predict.image import CLASSES_TEMPERATURE, ImageAnswer, TextMatch
from shards.store import filesystem, url_of
from shards.training.video_file import EXTENSIONS


def videos_of(places: Sequence[str]) -> Iterator[str]:
    """Name the videos of files and folders, a folder's by name and through all folders in it."""
    for place in places:
        fs, path = filesystem(place)
        if fs.isdir(path):
            found = sorted(name for name in fs.find(path) if _ending(name) in EXTENSIONS)
            yield from (url_of(fs, name) for name in found)
        else:
            yield place


def match(
    retriever: VideoRetriever, frames: Sequence[Image.Image], texts: Sequence[str]
) -> list[TextMatch]:
    """Score texts against a video's frames, in their order; as `match` does a picture."""
    video: EncodedImages = retriever.encode_images(_pixels(retriever.preprocess, frames))
    read = retriever.encode_texts(texts)
    ranking = retriever.rank(video, read, len(texts), "probability")
    itm, cosines = ranking.to_text[0], ranking.cosines[0]
    shares = (cosines / CLASSES_TEMPERATURE).softmax(0)
    rows = zip(texts, itm.tolist(), cosines.tolist(), shares.tolist(), strict=True)
    return [TextMatch(*row) for row in rows]


def ask(
    answerer: VqaModel, frames: Sequence[Image.Image], question: str, answers: Sequence[str] = ()
) -> list[ImageAnswer]:
    """Answer a question about a video's frames: in own words, or by ranking `answers`."""
    video = _pixels(answerer.preprocess, frames)
    if not answers:
        (answer,) = answerer.answer(video, [question])
        return [ImageAnswer(answer.text, answer.logprob)]
    (ranked,) = answerer.rank(video, [question], answers)
    return [ImageAnswer(one.text, one.score) for one in ranked]


def _pixels(preprocess: Preprocess, frames: Sequence[Image.Image]) -> torch.Tensor:
    """Resize frames: uint8 (1, F, 3, H, W)."""
    return torch.stack([preprocess.resize(frame) for frame in frames])[None]


def _ending(name: str) -> str:
    return PurePosixPath(name).suffix.lower().removeprefix(".")
