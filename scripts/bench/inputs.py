"""What all arms work on: pictures with texts in tars, and checkpoints with random weights."""

import io
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import webdataset as wds
from PIL import Image

from models.blip import tokenizer
from models.blip.config import Dtype, Size, blip_config
from models.checkpoints import checkpoint
from pipeline.toy.world import ToyWorldConfig, toy_sample, vocabulary

WORDS, TOKENS = 30_522, 20  # BLIP's vocabulary without [DEC] and [ENC]; tokens of a caption
PICTURE_PX, DISTINCT = 480, 64  # of made-up pictures: their side, and how many differ
ROLES: tuple[Literal["captioner", "filter"], ...] = ("captioner", "filter")
Pair = tuple[bytes, str]
Pairs = Sequence[tuple[Image.Image, str]]


@dataclass(frozen=True)
class Inputs:
    """Where things lie, and how much of them is done at a time; `batch` is the peers' batch."""

    folder: Path
    device: torch.device
    dtype: Dtype
    batch: int
    images: int  # without those of the first tar
    tokens: int = TOKENS
    peer_python: Path | None = None

    @property
    def shards(self) -> list[Path]:
        """The tars: the first is for warming up."""
        return sorted((self.folder / "input").glob("*.tar"))

    def pairs(self, shard: Path) -> Iterator[tuple[Image.Image, str]]:
        """Read a tar as one does without capfilt."""
        data = wds.WebDataset([str(shard)], shardshuffle=False).decode("pilrgb")
        yield from data.to_tuple("jpg", "txt")

    def in_batches(self, step: Callable[[Pairs], None], size: int, share: int = 1) -> int:
        """Take a step on each batch of the first of `share` parts of all pictures; count them."""
        count = max(1, self.images // share)
        waiting = islice(chain.from_iterable(map(self.pairs, self.shards[1:])), count)
        done = 0
        while batch := list(islice(waiting, size)):
            step(batch)
            done += len(batch)
        return done


def write_inputs(folder: Path, pairs: Iterable[Pair], warm_up: int, per_shard: int) -> int:
    """Write one tar to warm up with, then the others; count all pairs."""
    waiting = iter(pairs)
    folder.mkdir(parents=True)
    number, size, written = 0, warm_up, 0
    while shard := list(islice(waiting, size)):
        with tarfile.open(folder / f"{number:05}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for index, (image, text) in enumerate(shard):
                for ending, content in (("jpg", image), ("txt", text.encode())):
                    header = tarfile.TarInfo(f"{number:05}{index:06}.{ending}")
                    header.size = len(content)
                    tar.addfile(header, io.BytesIO(content))
        number, size, written = number + 1, per_shard, written + len(shard)
    return written


def made_up_pairs(count: int, px: int = PICTURE_PX) -> Iterator[Pair]:
    """Make JPEGs as heavy as photographs of their size, 64 in turn, with the toy world's texts."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(min(count, DISTINCT)):
        rough = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(rough).resize((px, px), Image.Resampling.BICUBIC))
        grain = rng.integers(-10, 11, smooth.shape)
        file = io.BytesIO()
        grained = (smooth.astype(np.int16) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(grained).save(file, "jpeg", quality=85)
        pictures.append(file.getvalue())
    texts = (toy_sample(number, False, ToyWorldConfig()).text for number in range(count))
    yield from zip(cycle(pictures), texts, strict=False)


def real_pairs(folder: str) -> Iterator[Pair]:
    """Take the JPEGs with a text out of a user's own shards."""
    urls = sorted(str(path) for path in Path(folder).glob("*.tar"))
    for sample in wds.WebDataset(urls, shardshuffle=False):
        image = sample.get("jpg") or sample.get("jpeg")
        if image and "txt" in sample:
            yield image, sample["txt"].decode("utf-8", "replace")


def write_models(folder: Path, size: Size, px: int) -> None:
    """Write a captioner and a filter with random weights and a vocabulary of BLIP's size."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *vocabulary()]
    words += [f"w{number}" for number in range(WORDS - len(words))]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    vocab = tokenizer.load(folder, WORDS)
    config = blip_config(size, image_size=px, **vocab.config_fields)
    for role in ROLES:
        checkpoint.create(folder / role, role, config, vocab, seed=0)
