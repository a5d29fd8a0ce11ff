"""What the image models can say about a video: match texts, and answer questions."""

from collections.abc import Iterable, Iterator, Sequence

from PIL import Image

from models.roles.video import VideoRetriever
from models.roles.vqa import VqaModel
from pipeline.media.pictures import extension
from pipeline.predict.image import CLASSES_TEMPERATURE, ImageAnswer, TextMatch, answer, stack_pixels
from shards.store import filesystem, url_of
from shards.training.video_file import EXTENSIONS


def list_videos(sources: Iterable[str]) -> Iterator[str]:
    """List the videos of files and folders, a folder's by name and through all folders in it."""
    for source in sources:
        fs, path = filesystem(source)
        if fs.isdir(path):
            names = sorted(name for name in fs.find(path) if extension(name) in EXTENSIONS)
            yield from (url_of(fs, name) for name in names)
        else:
            yield source


def match(
    retriever: VideoRetriever, frames: Sequence[Image.Image], texts: Sequence[str]
) -> list[TextMatch]:
    """Score texts against a video's frames, in their order; as `match` does a picture."""
    video = retriever.encode_images(stack_pixels(retriever.preprocess, frames)[None])
    ranking = retriever.rank(video, retriever.encode_texts(texts), len(texts), "probability")
    itm, cosines = ranking.to_text[0], ranking.cosines[0]
    shares = (cosines / CLASSES_TEMPERATURE).softmax(0)
    rows = zip(texts, itm.tolist(), cosines.tolist(), shares.tolist(), strict=True)
    return [TextMatch(*row) for row in rows]


def ask(
    answerer: VqaModel, frames: Sequence[Image.Image], question: str, answers: Sequence[str] = ()
) -> list[ImageAnswer]:
    """Answer a question about a video's frames: in own words, or by ranking `answers`."""
    return answer(answerer, stack_pixels(answerer.preprocess, frames)[None], question, answers)
