"""The batch loader: pixels and token ids out of the training stream, ahead of the step.

Pictures are decoded in threads, a bounded number ahead. One that cannot be used is counted by its
reason, and its lane's next sample takes its row, so that no other lane shifts: what comes out
depends neither on the number of threads nor on that of workers.
"""

import hashlib
import queue
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Self

import torch
from PIL import Image
from torch import Tensor

from models.blip.framing import tokenize_batch
from models.blip.tokenizer import WordPiece, normalise
from models.training.dialogue import Dialogue, compose
from pipeline.media.decode import DecodeLimits, DecodeRefusal, decode
from shards.errors import CapfiltError
from shards.schema import SampleReason, TextReason
from shards.training.annotation import SourceText
from shards.training.stream import Example, TrainingStream

_PATIENCE = 100  # refused in a row before a lane can be given up, however short its epochs are

_OTHER_SIDE = {"left": "right", "right": "left"}

Picture = Callable[[Image.Image, int], Tensor]


class LoaderError(CapfiltError, RuntimeError):
    """A lane out of which nothing comes that can be trained on."""


@dataclass(frozen=True, slots=True)
class TextTransform:
    """How texts become ids: each made `clean`; `max_tokens` count [CLS] and [SEP]."""

    words: WordPiece
    max_tokens: int
    clean: Callable[[str], str] = normalise

    def encode(self, cleaned: Sequence[str], texts: Sequence[SourceText]) -> list[list[int]]:
        """Turn texts into ids; a dialogue's question brings along what was said before it."""
        return [
            ids
            if text.caption is None
            else compose(
                self.words, self.max_tokens, Dialogue(text.caption, text.rounds, text.text)
            )
            for ids, text in zip(self.words.encode(cleaned), texts, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Batch:
    """This worker's rows of one global batch: B pictures of side S, texts of up to T tokens.

    `pixels` is uint8 (B, 3, S, S); `ids` and `mask` are (B, T), the ids beginning with [CLS];
    `image_ids` and `text_hashes` are int64 (B,), equal where images or texts are. `positions` are
    the stream's after this batch, for a checkpoint. `left_out` counts by reason what was passed
    over on the way to it. `references` are all texts of each picture, and `chosen` the one of each
    row, with what is annotated of it. Statements have a second picture each, `right`.
    """

    pixels: Tensor
    ids: Tensor
    mask: Tensor
    image_ids: Tensor
    text_hashes: Tensor
    texts: list[str]
    keys: list[str]
    positions: dict[int, int]
    left_out: Counter[str]
    references: tuple[tuple[str, ...], ...] = ()
    chosen: tuple[SourceText, ...] = ()
    right: Tensor | None = None

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.texts)


@dataclass(frozen=True, slots=True)
class _Row:
    """An example that can be used, with its text as the model sees it."""

    example: Example
    text: str
    pixels: Tensor
    right: Tensor | None


class _Closed(Exception):  # noqa: N818 - a signal within this file, not an error
    """Nobody waits for batches any more."""


class BatchLoader:
    """Endless batches of the stream's lanes, `rows_per_lane` rows of each, lane after lane.

    `picture` turns an RGB image and a seed into uint8 (3, S, S). `ahead` batches wait at most.
    Close it, or use it in a `with` block; it closes the stream too.
    """

    def __init__(
        self,
        stream: TrainingStream,
        picture: Picture,
        wording: TextTransform,
        rows_per_lane: int,
        limits: DecodeLimits,
        threads: int = 2,
        ahead: int = 4,
    ) -> None:
        if min(rows_per_lane, threads, ahead) < 1:
            raise ValueError(
                f"rows_per_lane, threads and ahead should be at least 1, found {rows_per_lane}, "
                f"{threads} and {ahead}"
            )
        self.left_out: Counter[str] = Counter()
        self._stream, self._picture, self._wording = stream, picture, wording
        self._rows_per_lane, self._limits = rows_per_lane, limits
        self._positions = stream.positions
        self._refused = dict.fromkeys(stream.lanes, 0)
        self._looked: dict[int, deque[Future[_Row | str]]] = {n: deque() for n in stream.lanes}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="feed")
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(ahead)
        self._closed = threading.Event()
        self._maker = threading.Thread(target=self._make, name="feed", daemon=True)

    @property
    def rows_per_epoch(self) -> float:
        """Samples in an epoch, in all lanes of all workers; whole unless a `repeat` is not."""
        return self._stream.rows_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches until the feed is closed; raises FeedError, and what reading raises."""
        if not self._closed.is_set() and self._maker.ident is None:
            self._maker.start()
        while not self._closed.is_set():
            found = self._ready.get()
            if isinstance(found, BaseException):
                self.close()
                raise found
            self.left_out += found.left_out
            yield found

    def __enter__(self) -> Self:
        """Give the feed itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the feed."""
        self.close()

    def close(self) -> None:
        """End the threads and close the stream; what waits is dropped."""
        self._closed.set()
        while self._maker.is_alive():
            while not self._ready.empty():
                self._ready.get()
            self._maker.join(0.01)
        self._pool.shutdown(cancel_futures=True)
        self._stream.close()

    def _make(self) -> None:
        try:
            while True:
                self._ready.put(self._next_batch())
        except _Closed:
            pass
        except BaseException as error:  # it is raised where the batches are taken
            self._ready.put(error)

    def _next_batch(self) -> Batch:
        for lane, looked in self._looked.items():
            while len(looked) < 2 * self._rows_per_lane:  # this batch and, meanwhile, the next
                self._look_ahead(lane)
        left_out: Counter[str] = Counter()
        rows = [row for lane in self._looked for row in self._fill(lane, left_out)]
        return self._collate(rows, left_out)

    def _look_ahead(self, lane: int) -> None:
        if self._closed.is_set():
            raise _Closed
        example = self._stream.next_of(lane)
        self._looked[lane].append(self._pool.submit(self._prepare, example))

    def _fill(self, lane: int, left_out: Counter[str]) -> list[_Row]:
        """Take a lane's rows of a batch; only what is taken counts for its position."""
        rows: list[_Row] = []
        while len(rows) < self._rows_per_lane:
            if not self._looked[lane]:
                self._look_ahead(lane)
            found = self._looked[lane].popleft().result()
            self._positions[lane] += 1
            if isinstance(found, _Row):
                self._refused[lane] = 0
                rows.append(found)
            else:
                left_out[found] += 1
                self._refused[lane] += 1
                self._check_patience(lane, left_out)
        return rows

    def _check_patience(self, lane: int, left_out: Counter[str]) -> None:
        epoch = int(self._stream.epochs_at({lane: self._positions[lane]}))
        in_epoch = self._stream.rows_of_lane(lane, epoch)
        if self._refused[lane] >= max(in_epoch, _PATIENCE):
            reasons = ", ".join(f"{reason}: {count}" for reason, count in left_out.most_common())
            raise LoaderError(
                f"lane {lane} gave nothing to train on in {self._refused[lane]} samples, a whole "
                f"epoch of it ({reasons}); check the sources, and the limits on pictures"
            )

    def _prepare(self, example: Example) -> _Row | str:
        """Decode an example's picture, in a thread of the pool; or say why it cannot be used."""
        example = shuffle_pair(example)
        text = self._wording.clean(example.text)
        if not text:
            return TextReason.EMPTY
        pictures = []
        for place, data in enumerate((example.image, example.right)):
            found = None if data is None else self._look(data, example.seed + place)
            if isinstance(found, str):
                return found
            pictures.append(found)
        left, right = pictures
        assert left is not None
        return _Row(example, text, left, right)

    def _look(self, data: bytes, seed: int) -> Tensor | str:
        if not data:
            return SampleReason.IMAGE_MISSING
        decoded = decode(data, self._limits)
        return (
            decoded.reason
            if isinstance(decoded, DecodeRefusal)
            else self._picture(decoded.image, seed)
        )

    def _collate(self, rows: list[_Row], left_out: Counter[str]) -> Batch:
        words, texts = self._wording.words, [row.text for row in rows]
        limit, cpu = self._wording.max_tokens, torch.device("cpu")
        pieces = self._wording.encode(texts, [row.example.chosen for row in rows])
        framed = tokenize_batch(pieces, words, words.cls_id, limit, cpu)
        return Batch(
            pixels=torch.stack([row.pixels for row in rows]),
            ids=framed.ids,
            mask=framed.mask,
            image_ids=torch.tensor([row.example.image_id for row in rows]),
            text_hashes=torch.tensor([_hash(text) for text in texts]),
            texts=texts,
            keys=[row.example.key for row in rows],
            positions=dict(self._positions),
            left_out=left_out,
            references=tuple(row.example.texts for row in rows),
            chosen=tuple(row.example.chosen for row in rows),
            right=_stacked([row.right for row in rows]),
        )


def shuffle_pair(example: Example) -> Example:
    """Exchange the two pictures of a statement, and its words left and right, in half of all turns.

    Which of the two is on the left says nothing, but where a statement speaks of it.
    """
    if example.right is None or example.seed % 2:
        return example
    said = " ".join(_OTHER_SIDE.get(word, word) for word in example.text.split(" "))
    chosen = replace(example.chosen, text=said)
    return replace(example, image=example.right, right=example.image, chosen=chosen)


def _stacked(pictures: list[Tensor | None]) -> Tensor | None:
    given = [picture for picture in pictures if picture is not None]
    return torch.stack(given) if given else None


def _hash(text: str) -> int:
    """Hash a text to 63 bits."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1
