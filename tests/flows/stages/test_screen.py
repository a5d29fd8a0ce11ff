"""From a screening to a cleaning that pays for each picture once."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.driving import InProcess, Models, table


def noise(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((96, 96), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def web(tmp_path: Path) -> Path:
    """Two shards of 3 pictures, of which the second's first two are the first's again."""
    first = [encoded(noise(seed), "PNG") for seed in range(3)]
    second = [first[0], encoded(noise(1), "JPEG", quality=60), encoded(noise(7), "PNG")]
    (tmp_path / "web").mkdir()
    for number, pictures in enumerate((first, second)):
        with tarfile.open(tmp_path / "web" / f"{number:03}.tar", "w") as tar:
            for name, data in [(f"k{n}.png", data) for n, data in enumerate(pictures)]:
                for member, content in ((name, data), (f"{name[:-4]}.txt", b"a picture")):
                    info = tarfile.TarInfo(member)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return tmp_path / "web"


def test_models_see_the_keepers_alone(
    capfilt: InProcess,
    web: Path,
    toy_models: Models,
    tmp_path: Path,
    flags: Callable[..., list[str]],
) -> None:
    screen = tmp_path / "screen"
    made = capfilt.run(
        "clean", "--only=screen", f"--input={web}", f"--output={screen}", "--engine=local", "--json"
    )
    counted = json.loads(made.stdout)
    assert made.returncode == 0
    assert (counted["kind"], counted["kept"], counted["filtered"]) == ("screen", 6, 0)
    deduplicated = json.loads(capfilt.run("dedup", str(screen), "--keep=first", "--json").stdout)
    assert deduplicated["by_kind"] == {"exact": 1, "near": 1}

    command = flags(toy_models, web, tmp_path / "run")
    more = (f"--skip={screen}:unique", "--engine=local", "--direct", "--json")
    cleaned = json.loads(capfilt.run(*command, *more).stdout)
    assert cleaned["rejected_by_reason"] == {"skipped": 2}
    assert cleaned["samples_in"] == cleaned["kept"] + cleaned["filtered"] + cleaned["rejected"] == 6
    assert cleaned["texts"]["synthetic"]["in"] == cleaned["texts"]["web"]["in"] == 4
    assert capfilt.run("verify", str(tmp_path / "run")).returncode == 0
    assert capfilt.run("verify", str(screen)).returncode == 0
    other = capfilt.run(*command, "--engine=local", "--direct")
    assert other.returncode == 2
    assert "skip" in other.stderr


@pytest.mark.parametrize(("texts", "lacks"), [(1, False), (0, True)])
def test_a_screening_lacks_texts_only_where_none_has_one(
    capfilt: InProcess, tmp_path: Path, texts: int, lacks: bool
) -> None:
    (tmp_path / "web").mkdir()
    for number in range(3):
        noise(number).save(tmp_path / "web" / f"{number}.png")
        if number < texts:
            (tmp_path / "web" / f"{number}.txt").write_text("a picture of a dog in the street")
    made = capfilt.run(
        *("clean", "--only=screen", f"--input={tmp_path}/web", f"--output={tmp_path}/screen"),
        *("--engine=local", "--json"),
    )
    assert json.loads(made.stdout)["lacks_all_texts"] is lacks


def test_of_a_flood_models_see_the_keepers_alone(
    capfilt: InProcess,
    data_dir: Path,
    toy_models: Models,
    tmp_path: Path,
    flags: Callable[..., list[str]],
) -> None:
    flood, screen, run = data_dir / "noisy_real" / "web" / "flood-*.tar", "screen", "run"
    if not list(flood.parent.glob(flood.name)):
        pytest.skip("no flood")

    def numbers(*command: str) -> Any:
        done = capfilt.run(*command, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    seen = numbers(
        "clean", "--only=screen", f"--input={flood}", "--output=screen", "--engine=local"
    )
    unique = numbers("dedup", screen)
    samples, keepers = seen["samples_in"], unique["kept"]
    assert keepers == seen["kept"] - unique["excluded"] < samples / 2

    command = flags(toy_models, flood, tmp_path / run)
    cleaned = numbers(*command, f"--skip={screen}:unique", "--engine=local", "--direct")
    rejected = {**seen["rejected_by_reason"], "skipped": unique["excluded"]}
    assert cleaned["rejected_by_reason"] == rejected
    assert cleaned["kept"] + cleaned["filtered"] + cleaned["rejected"] == samples
    assert cleaned["samples_in"] == samples
    assert cleaned["texts"]["synthetic"]["in"] == keepers
    texts = table(tmp_path / run, "texts")
    captions = [row for row in texts if "synthetic" in row]
    assert len({row[:2] for row in captions}) == len(captions) == keepers
    assert numbers("verify", run)["problems"] == []
