"""The pieces of cleaning an image outside of the models, each done alone in one thread."""

import io
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from models.blip.preprocess import Preprocess
from pipeline.clean.export import Provenance, WriteConfig, clean_sample
from pipeline.clean.judge import JudgeConfig, judge
from pipeline.clean.line.ring import Buffer
from pipeline.clean.screen import ScreenConfig, ScreenedSample, screen
from pipeline.clean.text.language import detect_language
from pipeline.clean.text.web_text import read_web_text
from pipeline.media.decode import DecodeLimits, decode, difference_hash
from pipeline.media.pixels import pixels_of
from shards.inputs.reader import RawSample, ShardReader, open_shard
from shards.inputs.sidecar import read_sidecar
from shards.schema import TEXTS, DecisionRow, TextRow, arrow_rows
from shards.store import Store
from shards.writer import ShardWriter

Item = TypeVar("Item")

KEPT: list[DecisionRow] = [{"text_no": n, "keep": True, "reason": "kept"} for n in (0, 1)]


def pieces(tar: Path, way: Preprocess, batch: int) -> Iterator[tuple[str, float]]:
    """Time each piece over the samples of a tar, in CPU milliseconds an image."""
    raws = [raw for raw in _read(tar) if raw.image is not None]
    side = max(way.width, way.height)
    limits = DecodeLimits(32, 50_000_000, 10, side)
    screened = [screen(raw, ScreenConfig(), wanted_side=side) for raw in raws]
    pictures = [sample.image for sample in screened if sample.image is not None]
    views, buffer = [way.resize(picture, pixels_of) for picture in pictures], Buffer(batch, False)
    texts = [_texts(sample) for sample in screened]
    tables = [
        arrow_rows([row for rows in texts[at : at + batch] for row in rows], TEXTS)
        for at in range(0, len(texts), batch)
    ]
    works: dict[str, Callable[[], Any]] = {
        "read the tar, with its hash": lambda: _read(tar),
        "open, decode, look for blank": lambda: _each(
            raws, lambda r: decode(r.image or b"", limits)
        ),
        "difference hash": lambda: _each(pictures, difference_hash),
        "sha256 of the file": lambda: _each(raws, lambda raw: sha256(raw.image or b"").hexdigest()),
        "text, its language, sidecar": lambda: _each(raws, _written),
        "resize": lambda: _each(pictures, lambda picture: way.resize(picture, pixels_of)),
        "copy into the batch": lambda: _each(
            enumerate(views), lambda place: buffer.put(place[0] % batch, [place[1]])
        ),
        "judge": lambda: _each(tables, lambda table: judge(table, JudgeConfig()).to_pylist()),
        "write, publish, read back": lambda: _write(raws, screened, texts),
    }
    total = 0.0
    for name, work in works.items():
        ms = min(_ms(work) for _ in range(5)) / len(raws)
        total += ms
        yield name, ms
    yield "sum", total
    alone = min(_ms(lambda: _each(raws, _load)) for _ in range(5))
    yield "of it Pillow's decoding", alone / len(raws)


def _each(items: Iterable[Item], work: Callable[[Item], Any]) -> None:
    """Work on each; what comes of it is let go, as in a cleaning, whose memory is used again."""
    for item in items:
        work(item)


def _ms(work: Callable[[], Any]) -> float:
    begun = time.thread_time()
    work()
    return 1e3 * (time.thread_time() - begun)


def _read(tar: Path) -> list[RawSample]:
    with open_shard(str(tar)) as file:
        return list(ShardReader(file))


def _load(raw: RawSample) -> None:
    with Image.open(io.BytesIO(raw.image or b"")) as opened:
        opened.load()


def _written(raw: RawSample) -> None:
    detect_language(read_web_text(raw.text, 10_000).text or "")
    read_sidecar(raw.meta)


def _texts(sample: ScreenedSample) -> list[TextRow]:
    place = {"shard": "s", "index": sample.facts["index"], "itm": 0.7, "itm_logit": 1.0}
    numbers = {"itc": 0.3, "logprob": -1.0, "tokens": 5, "truncated": False, "author": None}
    return [
        {**place, **numbers, "text_no": n, "origin": origin, "text": "a picture of a thing"}
        for n, origin in enumerate(("web", "synthetic"))
    ]


def _write(
    raws: Sequence[RawSample], screened: Sequence[ScreenedSample], texts: Sequence[list[TextRow]]
) -> None:
    source = Provenance("s", "f" * 64, 0)
    with tempfile.TemporaryDirectory() as folder, ShardWriter(Store(folder), "s", "a") as writer:
        for raw, sample, rows in zip(raws, screened, texts, strict=True):
            clean = clean_sample(sample.facts, rows, raw.image or b"", WriteConfig(), source)
            writer.add(sample.facts, rows, KEPT, clean)
        writer.finish()
