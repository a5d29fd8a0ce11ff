"""Pictures, tars and tiny real models that the tests of this room share."""

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from models.roles.captioner import BlipCaptioner
from models.roles.filter import Filter
from pipeline.clean.caption import CaptionConfig
from pipeline.clean.prepare import ExecutionConfig
from pipeline.clean.score import ScoreConfig
from pipeline.clean.shard import CleanConfig, ShardCleaner, identity
from shards.inputs.listing import list_inputs
from shards.run.commit import read_commit
from shards.run.run import Run
from shards.run.verify.run import verify_run
from shards.store import Store
from tests.support.small_index import items, pictured, retriever, toy_index  # noqa: F401 - fixtures
from tests.support.small_training import start, whole, world  # noqa: F401 - fixtures
from tests.support.tars import read_members


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Let tiny models run in one thread: on a busy machine several only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


Row = dict[str, Any]


class Bench:
    """Makes runs over shards, and cleaners for them."""

    def __init__(self, folder: Path, config: CleanConfig, captioner: Any, scorer: Any) -> None:
        self.folder, self.config = folder, config
        self.captioner, self.scorer = captioner, scorer
        self._runs = 0

    def put(self, name: str, data: bytes) -> Path:
        path = self.folder / "web" / f"{name}.tar"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return path

    def run(self, *inputs: Path, **changed: Any) -> tuple[Run, CleanConfig]:
        self._runs += 1
        config = self.config.model_copy(update=changed)
        identity_ = identity(config, self.captioner.digest, self.scorer.digest)
        listed = list_inputs([str(path) for path in inputs])
        folder = self.folder / f"run{self._runs}"
        return Run.create(Store(str(folder)), "", identity_, {}, listed), config

    def cleaner(self, run: Run, config: CleanConfig, **other: Any) -> ShardCleaner:
        captioner = other.get("captioner", self.captioner)
        scorer = other.get("scorer", self.scorer)
        return ShardCleaner(run, config, captioner, scorer, other.get("pace", ExecutionConfig()))

    def clean(self, *inputs: Path, pace: ExecutionConfig | None = None, **changed: Any) -> Run:
        """Clean all shards of a new run."""
        run, config = self.run(*inputs, **changed)
        cleaner = self.cleaner(run, config, pace=pace or ExecutionConfig())
        for shard in run.inputs:
            cleaner.clean(shard, self.ignore)
        assert verify_run(run).problems == ()
        return run

    @staticmethod
    def ignore(samples: int, size_bytes: int) -> None:
        """Hear how far it is, and say nothing."""

    @staticmethod
    def rows(run: Run, table: str, shard: str | None = None) -> list[Row]:
        done = read_commit(run, shard or run.shards[0])
        assert done is not None
        file = done.file(table)
        assert file is not None
        found: list[Row] = pq.read_table(io.BytesIO(run.store.read(file.name))).to_pylist()
        return found

    @staticmethod
    def clean_members(run: Run, shard: str | None = None) -> dict[str, bytes]:
        done = read_commit(run, shard or run.shards[0])
        assert done is not None
        file = done.file("clean")
        assert file is not None
        return dict(read_members(run.store.read(file.name)))


def _noise(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def noise() -> Callable[..., Image.Image]:
    """Make an RGB picture of noise, which no codec takes for blank."""
    return _noise


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """Encode a picture in a format of Pillow."""
    return _encode


@pytest.fixture(scope="session")
def tar_of() -> Callable[[Iterable[tuple[str, bytes]]], bytes]:
    """Make a tar of (name, bytes) members."""

    def make(members: Iterable[tuple[str, bytes]]) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def bad_inputs(data_dir: Path) -> Path:
    folder = data_dir / "bad_inputs"
    if not folder.is_dir():
        pytest.skip(f"no bad inputs at {folder}")
    return folder


@pytest.fixture(scope="session")
def cases(bad_inputs: Path) -> list[dict[str, Any]]:
    """Give the cases of the manifest that concern shards and their samples."""
    rows = json.loads((bad_inputs / "manifest.json").read_text(encoding="utf-8"))
    return [row for row in rows if row["level"] in ("sample", "shard")]


@pytest.fixture(scope="session")
def checkpoints(data_dir: Path) -> Path:
    """Give the folder of the tiny captioner and filter in Hugging Face's layout."""
    folder = data_dir / "parity" / "hf"
    if not (folder / "captioning").is_dir() or not (folder / "retrieval").is_dir():
        pytest.skip(f"no tiny checkpoints at {folder}")
    return folder


@pytest.fixture(scope="session")
def config(checkpoints: Path) -> CleanConfig:
    """Give the default recipe with the tiny models."""
    return CleanConfig(
        dtype="fp32",
        caption=CaptionConfig(model=str(checkpoints / "captioning")),
        score=ScoreConfig(model=str(checkpoints / "retrieval")),
    )


@pytest.fixture(scope="session")
def load_captioner() -> Callable[[CleanConfig], BlipCaptioner]:
    def load(config: CleanConfig) -> BlipCaptioner:
        return BlipCaptioner.load(
            config.caption.model, decoding=config.caption, seed=config.seed, dtype="fp32"
        )

    return load


@pytest.fixture(scope="session")
def captioner(config: CleanConfig, load_captioner: Any) -> BlipCaptioner:
    return load_captioner(config)


@pytest.fixture(scope="session")
def scorer(config: CleanConfig) -> Filter:
    return Filter.load(config.score.model, max_tokens=config.score.max_tokens, dtype="fp32")


@pytest.fixture
def bench(tmp_path: Path, config: CleanConfig, captioner: Any, scorer: Any) -> Bench:
    return Bench(tmp_path, config, captioner, scorer)


@pytest.fixture(scope="session")
def make_bench() -> type[Bench]:
    """Give the class, for runs that several tests share."""
    return Bench


@pytest.fixture(scope="session")
def members(noise: Any, encode: Any) -> list[tuple[str, bytes]]:
    """Give 23 samples of all kinds: most are fine, some lack a text, some are rejected."""
    found = []
    for n in range(23):
        kind = ("JPEG", "PNG", "WEBP")[n % 3]
        image = encode(noise(48 + n, 40, seed=n), kind)
        image = {5: b"no picture", 11: b"", 17: image[: len(image) // 2]}.get(n, image)
        found.append((f"k{n:02}.{kind.lower()}", image))
        if n % 6 != 4:
            found.append((f"k{n:02}.txt", f"a picture of {n} grey cats".encode()))
        found.append((f"k{n:02}.json", b'{"n": %d}' % n))
    return found


@pytest.fixture
def shard(bench: Bench, members: Any, tar_of: Any) -> Path:
    return bench.put("00000", tar_of(members))
