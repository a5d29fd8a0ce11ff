"""Evaluate videos with image models: retrieval (MSRVTT) and questions (MSRVTT-QA, MSVD-QA).

Nothing is trained on videos here: this is what BLIP §5.6 calls zero-shot.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from operator import attrgetter
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from models.blip.preprocess import Preprocess
from models.blip.tokenizer import normalise
from models.roles.retrieval import Ranked
from models.roles.video import VideoRetriever
from models.roles.vqa import VqaModel
from pipeline.evaluate import metrics
from pipeline.evaluate.retrieval import Both, scores
from pipeline.evaluate.spool import StateSpool
from pipeline.media.video import FRAMES_FOR_QUESTIONS, FRAMES_FOR_RETRIEVAL, Decode, read_frames
from pipeline.media.video_container import VideoReason
from pipeline.media.video_guard import VideoGuard
from shards.training.left_out import LeftOut, Unusable
from shards.training.video_file import Clip, video_location

QUESTIONS_AT_ONCE = 16  # about one video
_QUESTION_WORDS = ("what", "who", "how", "when", "where", "which", "why")


class _Videos:
    """Frames of a folder's videos, resized: those of the last one asked for are kept."""

    def __init__(self, folder: str, count: int, preprocess: Preprocess, decode: Decode) -> None:
        self._folder, self._count, self._preprocess = folder, count, preprocess
        self._decode = decode
        self._name = ""
        self._frames: Tensor | str = VideoReason.MISSING
        self.notes: Counter[str] = Counter()

    def load(self, name: str) -> Tensor | str:
        """Return a video's frames, uint8 (F, 3, H, W), or why there are none."""
        if name != self._name:
            self._name, self._frames = name, self._read(name)
        return self._frames

    def _read(self, name: str) -> Tensor | str:
        url = video_location(self._folder, name)
        if url is None:
            return VideoReason.MISSING
        frames = read_frames(url, self._count, decode=self._decode)
        self.notes.update([frames.note] if frames.note else [])
        if frames.reason is not None:
            return frames.reason
        return torch.stack([self._preprocess.resize(image) for image in frames.images])


def measure_video_retrieval(
    retriever: VideoRetriever,
    clips: Iterable[Clip],
    videos: str,
    frames: int = FRAMES_FOR_RETRIEVAL,
    *,
    k: int = 128,
    ranked: Ranked | None = None,
) -> dict[str, Any]:
    """Search videos by their captions (`ir`) and captions by their videos (`tr`).

    ITC takes the mean of the frames, ITM looks at all of them; median ranks count from 1.
    """
    left_out = LeftOut()
    numbers_of: dict[str, set[int] | None] = {}  # by video; None where it cannot be used
    numbers: dict[str, int] = {}  # of each text, as the model reads it
    with VideoGuard() as guard, StateSpool() as spool:
        loader = _Videos(videos, frames, retriever.preprocess, guard.decode)
        for clip in clips:
            if clip.video not in numbers_of:
                loaded = loader.load(clip.video)
                if isinstance(loaded, str):
                    left_out[Unusable(loaded, f"{clip.video} in {videos}")] += 1
                else:
                    spool.add(retriever.encode_images(loaded[None]))
                numbers_of[clip.video] = None if isinstance(loaded, str) else set()
            texts = numbers_of[clip.video]
            if texts is not None:
                texts.add(numbers.setdefault(normalise(clip.text), len(numbers)))
        itc, itm = scores(retriever, spool.whole(), list(numbers), k, ranked)
    texts_of = [texts for texts in numbers_of.values() if texts is not None]
    return {
        "videos": len(texts_of),
        "texts": len(numbers),
        "frames": frames,
        "left_out": left_out,
        "notes": dict(loader.notes),
        "k": k,
        "itc": _numbers(itc, texts_of),
        "itm": _numbers(itm, texts_of),
    }


def _numbers(scored: Both, texts_of: Sequence[set[int]]) -> metrics.Numbers:
    to_text, to_video = scored
    videos_of = metrics.images_of_texts(texts_of, len(to_video))
    return metrics.retrieval(to_text, to_video, texts_of) | {
        "tr_median_rank": metrics.median_rank(to_text, texts_of),
        "ir_median_rank": metrics.median_rank(to_video, videos_of),
    }


def measure_video_questions(
    answerer: VqaModel,
    clips: Iterable[Clip],
    videos: str,
    frames: int = FRAMES_FOR_QUESTIONS,
    *,
    answers: Sequence[str] = (),
    results: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Answer questions about videos: the share whose one answer is given word for word.

    With `answers` the best of them is taken, else an answer is written. A video is looked at once
    for questions about it that stand together. `by_word` is the share of each question word, as
    papers report it.
    """
    left_out = LeftOut()
    right: dict[str, list[bool]] = defaultdict(list)
    with VideoGuard() as guard:
        loader = _Videos(videos, frames, answerer.preprocess, guard.decode)
        for asked in _together(clips):
            loaded = loader.load(asked[0].video)
            if isinstance(loaded, str):
                left_out[Unusable(loaded, f"{asked[0].video} in {videos}")] += len(asked)
                continue
            for clip, said in zip(asked, _answer(answerer, loaded, asked, answers), strict=True):
                if results is not None:
                    results.append({"video_id": clip.video, "question": clip.text, "answer": said})
                right[_word(clip.text)].append(metrics.words(said) == metrics.words(clip.answer))
    verdicts = list(chain.from_iterable(right.values()))
    return {
        "questions": len(verdicts),
        "frames": frames,
        "left_out": left_out,
        "notes": dict(loader.notes),
        "accuracy": fmean(verdicts) if verdicts else None,
        "by_word": {word: fmean(of_word) for word, of_word in sorted(right.items())},
    }


def _together(clips: Iterable[Clip]) -> Iterator[list[Clip]]:
    """Take questions about one video that follow each other, some at a time."""
    for _, following in groupby(clips, key=attrgetter("video")):
        while asked := list(islice(following, QUESTIONS_AT_ONCE)):
            yield asked


def _answer(
    answerer: VqaModel, video: Tensor, asked: Sequence[Clip], answers: Sequence[str]
) -> list[str]:
    questions = [clip.text for clip in asked]
    if answers:
        return [ranked[0].text for ranked in answerer.rank(video[None], questions, answers)]
    return [answer.text for answer in answerer.answer(video[None], questions)]


def _word(question: str) -> str:
    first = metrics.words(question)[:1]
    return first[0] if first and first[0] in _QUESTION_WORDS else "other"
