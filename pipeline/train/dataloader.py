"""The batch loader: pixels and token ids out of the training stream, ahead of the step.

Pictures are decoded in threads, a bounded number ahead. One that cannot be used is counted by its
reason, and its lane's next sample takes its row, so that no other lane shifts: what comes out
depends neither on the number of threads nor on that of workers.
"""

import hashlib
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice, repeat

import torch
from PIL import Image
from torch import Tensor

from models.blip.framing import tokenize_batch
from models.blip.tokenizer import WordPiece, normalise
from models.training.dialogue import Dialogue, compose
from pipeline.media.ahead import read_ahead
from pipeline.media.decode import DecodeLimits, DecodeRefusal, decode
from shards.errors import CapfiltError
from shards.reasons import SampleReason, TextReason
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

    @property
    def learned(self) -> Tensor:
        """Number the tokens after the first of each text, among all such places of the batch."""
        places = self.mask[:, 1:].flatten().nonzero().squeeze(1)
        return places.pin_memory() if self.ids.is_pinned() else places

    def padded(self, length: int, pad_id: int) -> "Batch":
        """Pad the texts to a length."""
        more = length - self.ids.shape[1]
        if not more:
            return self
        ids = torch.nn.functional.pad(self.ids, (0, more), value=pad_id)
        mask = torch.nn.functional.pad(self.mask, (0, more))
        whole = replace(self, ids=ids, mask=mask)
        return whole.pinned() if self.ids.is_pinned() else whole

    def pinned(self) -> "Batch":
        """Move the tensors where a GPU can fetch them while this process goes on."""
        names = ("pixels", "ids", "mask", "image_ids", "text_hashes", "right")
        tensors = {name: getattr(self, name) for name in names}
        return replace(
            self, **{name: t.pin_memory() for name, t in tensors.items() if t is not None}
        )


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

    `picture` turns an RGB image and a seed into uint8 (3, S, S). `ahead` batches wait at most, in
    pinned memory if `pin` says that a GPU fetches them. Close it; it closes the stream too.
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
        pin: bool = False,
    ) -> None:
        if min(rows_per_lane, threads, ahead) < 1:
            raise ValueError(
                f"rows_per_lane, threads and ahead should be at least 1, found {rows_per_lane}, "
                f"{threads} and {ahead}"
            )
        self.left_out: Counter[str] = Counter()
        self._stream, self._wording, self._pin = stream, wording, pin
        prepare = _PrepareRow(picture, wording.clean, limits)
        self._rows = _LaneRows(stream, prepare, rows_per_lane, threads)
        # one thread makes batch after batch: its own work, collating, overlaps with the step too
        self._batches = read_ahead(
            repeat(None), lambda _: self._next_batch(), lambda _: 0, ahead, threads=1
        )

    @property
    def rows_per_epoch(self) -> float:
        """Samples in an epoch, in all lanes of all workers; whole unless a `repeat` is not."""
        return self._stream.rows_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches until the loader is closed; raises LoaderError, and what reading raises."""
        while not self._rows.closed.is_set():
            try:
                _, batch = next(self._batches)
            except BaseException:
                self.close()
                raise
            self.left_out += batch.left_out
            yield batch

    def close(self) -> None:
        """End the threads and close the stream; what waits is dropped."""
        self._rows.closed.set()  # seen by the thread that makes a batch, which draws no more
        self._batches.close()  # returns when that thread is over: only then are the rows free
        self._rows.close()
        self._stream.close()

    def _next_batch(self) -> Batch:
        left_out: Counter[str] = Counter()
        rows = self._rows.take(left_out)
        batch = _collate(rows, self._wording, dict(self._rows.positions), left_out)
        return batch.pinned() if self._pin else batch


class _LaneRows:
    """Rows of the stream's lanes, decoded one batch ahead of who takes them.

    One thread takes; others decode. The results of all lanes come in the order in which their
    examples were drawn, and wait in a queue for each lane until a batch wants them: a lane whose
    pictures are refused draws more, and no other lane notices.
    """

    def __init__(
        self, stream: TrainingStream, prepare: "_PrepareRow", rows_per_lane: int, threads: int
    ) -> None:
        self.closed = threading.Event()
        self.positions = stream.positions
        self._stream, self._rows_per_lane = stream, rows_per_lane
        self._refused = dict.fromkeys(stream.lanes, 0)  # in a row, up to the last one taken
        self._looked: dict[int, deque[_Row | str]] = {lane: deque() for lane in stream.lanes}
        self._pending = dict.fromkeys(stream.lanes, 0)  # drawn, not yet taken, and not refused
        self._short = 0  # the lane that the taker waits for; set before any is drawn from
        self._ahead = read_ahead(
            self._draw(),
            lambda drawn: prepare(drawn[1]),
            lambda drawn: len(drawn[1].image) + len(drawn[1].right or b""),
            len(stream.lanes) * rows_per_lane,
            threads=threads,
        )

    def close(self) -> None:
        """End the threads that decode; nobody may be taking."""
        self._ahead.close()

    def take(self, left_out: Counter[str]) -> list[_Row]:
        """Take all lanes' rows of a batch; count in `left_out` what was passed over."""
        return [row for lane in self._looked for row in self._fill(lane, left_out)]

    def _draw(self) -> Iterator[tuple[int, Example]]:
        """Draw examples for ever, a batch's rows from lane after lane.

        A lane that has two batches' rows waits for the others, lest decoded pictures pile up while
        one lane is refused again and again; then that lane alone is drawn from.
        """
        turns = [lane for lane in self._stream.lanes for _ in range(self._rows_per_lane)]
        in_turn, most = cycle(turns), 2 * self._rows_per_lane
        while not self.closed.is_set():
            hungry = (lane for lane in islice(in_turn, len(turns)) if self._pending[lane] < most)
            lane = next(hungry, self._short)
            self._pending[lane] += 1
            yield lane, self._stream.next_of(lane)
        raise _Closed

    def _fill(self, lane: int, left_out: Counter[str]) -> list[_Row]:
        """Take a lane's rows of a batch; only what is taken counts for its position."""
        rows: list[_Row] = []
        self._short = lane
        while len(rows) < self._rows_per_lane:
            while not self._looked[lane]:
                self._receive()
            row = self._looked[lane].popleft()
            self.positions[lane] += 1
            if isinstance(row, _Row):
                self._refused[lane] = 0
                self._pending[lane] -= 1
                rows.append(row)
            else:
                left_out[row] += 1
                self._refused[lane] += 1
                self._check_patience(lane, left_out)
        return rows

    def _receive(self) -> None:
        (lane, _), row = next(self._ahead)
        self._looked[lane].append(row)
        if not isinstance(row, _Row):
            self._pending[lane] -= 1

    def _check_patience(self, lane: int, left_out: Counter[str]) -> None:
        epoch = int(self._stream.epochs_at({lane: self.positions[lane]}))
        in_epoch = self._stream.rows_of_lane(lane, epoch)
        if self._refused[lane] >= max(in_epoch, _PATIENCE):
            reasons = ", ".join(f"{reason}: {count}" for reason, count in left_out.most_common())
            raise LoaderError(
                f"lane {lane} gave nothing to train on in {self._refused[lane]} samples, a whole "
                f"epoch of it ({reasons}); check the sources, and the limits on pictures"
            )


@dataclass(frozen=True, slots=True)
class _PrepareRow:
    """Decodes an example's pictures, in a thread of its own; or says why it cannot be used."""

    picture: Picture
    clean: Callable[[str], str]
    limits: DecodeLimits

    def __call__(self, example: Example) -> _Row | str:
        example = shuffle_pair(example)
        text = self.clean(example.text)
        if not text:
            return TextReason.EMPTY
        left = self._look(example.image, example.seed)
        if isinstance(left, str):
            return left
        right = None if example.right is None else self._look(example.right, example.seed + 1)
        return right if isinstance(right, str) else _Row(example, text, left, right)

    def _look(self, data: bytes, seed: int) -> Tensor | str:
        if not data:
            return SampleReason.IMAGE_MISSING
        decoded = decode(data, self.limits)
        if isinstance(decoded, DecodeRefusal):
            return decoded.reason
        return self.picture(decoded.image, seed)


def _collate(
    rows: Sequence[_Row], wording: TextTransform, positions: dict[int, int], left_out: Counter[str]
) -> Batch:
    words, texts = wording.words, [row.text for row in rows]
    pieces = wording.encode(texts, [row.example.chosen for row in rows])
    framed = tokenize_batch(pieces, words, words.cls_id, wording.max_tokens, torch.device("cpu"))
    rights = [row.right for row in rows if row.right is not None]
    return Batch(
        pixels=torch.stack([row.pixels for row in rows]),
        ids=framed.ids,
        mask=framed.mask,
        image_ids=torch.tensor([row.example.image_id for row in rows]),
        text_hashes=torch.tensor([hash_text(text) for text in texts]),
        texts=texts,
        keys=[row.example.key for row in rows],
        positions=positions,
        left_out=left_out,
        references=tuple(row.example.texts for row in rows),
        chosen=tuple(row.example.chosen for row in rows),
        right=torch.stack(rights) if rights else None,
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


def hash_text(text: str) -> int:
    """Hash a text to 63 bits."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1
