"""Pictures, tars and tiny real models that the tests of this room share."""

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.captioners.config import BlipCaptionerConfig
from models.roles.captioner import BlipCaptioner
from models.roles.filter import Filter
from models.scorers.config import BlipScorerConfig
from pipeline.clean.config import CleanConfig
from tests.support.bench import Bench
from tests.support.small_index import items, pictured, retriever, toy_index  # noqa: F401 - fixtures
from tests.support.small_training import start, whole, world  # noqa: F401 - fixtures


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Let tiny models run in one thread: on a busy machine several only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
        caption=BlipCaptionerConfig(model=str(checkpoints / "captioning")),
        score=BlipScorerConfig(model=str(checkpoints / "retrieval")),
    )


@pytest.fixture(scope="session")
def load_captioner() -> Callable[[CleanConfig], BlipCaptioner]:
    def load(config: CleanConfig) -> BlipCaptioner:
        section = config.caption
        assert isinstance(section, BlipCaptionerConfig)
        return BlipCaptioner.load(section.model, decoding=section, seed=config.seed, dtype="fp32")

    return load


@pytest.fixture(scope="session")
def captioner(config: CleanConfig, load_captioner: Any) -> BlipCaptioner:
    return load_captioner(config)


@pytest.fixture(scope="session")
def scorer(config: CleanConfig) -> Filter:
    section = config.score
    assert isinstance(section, BlipScorerConfig)
    return Filter.load(section.model, max_tokens=section.max_tokens, dtype="fp32")


@pytest.fixture
def bench(tmp_path: Path, config: CleanConfig, captioner: BlipCaptioner, scorer: Filter) -> Bench:
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
