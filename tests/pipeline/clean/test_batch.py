"""Each picture is decoded once and seen once by each model, in batches that fit."""

import io
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import pipeline.clean.prepare
from pipeline.clean.prepare import ExecutionConfig
from pipeline.media.decode import decode
from shards.run.commit import Commit
from tests.support.bench import Bench
from tests.support.hand_made import LIMITS
from tests.support.tars import read_members

KINDS = ("jpeg", "png", "webp")


class Passes:
    """Counts pictures that go through the vision towers, and those that are decoded."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: dict[str, Counter[bytes]] = {"captioner": Counter(), "filter": Counter()}
        self.decoded: Counter[bytes] = Counter()
        self.opened = 0
        self._hooks = []
        for name, role in (("captioner", bench.captioner), ("filter", bench.scorer)):
            tower = role.network.vision_model
            self._hooks.append(tower.register_forward_pre_hook(self._hook(self.seen[name])))
        real_open, lock = Image.open, threading.Lock()

        def counted_decode(data: bytes, limits: Any) -> Any:
            with lock:
                self.decoded[data] += 1
            return decode(data, limits)

        def counted_open(*args: Any, **kwargs: Any) -> Any:
            with lock:
                self.opened += 1
            return real_open(*args, **kwargs)

        monkeypatch.setattr(pipeline.clean.prepare, "decode", counted_decode)
        monkeypatch.setattr(Image, "open", counted_open)

    @staticmethod
    def _hook(seen: Counter[bytes]) -> Callable[..., None]:
        def note(_: Any, args: tuple[torch.Tensor, ...]) -> None:
            seen.update(picture.numpy().tobytes() for picture in args[0])

        return note

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()


@pytest.fixture
def passes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Passes]:
    counted = Passes(bench, monkeypatch)
    yield counted
    counted.close()


@pytest.mark.parametrize("images", ["original", "jpeg"])
def test_one_decode_and_one_vision_pass(
    bench: Bench, shard: Path, passes: Passes, members: Any, images: str
) -> None:
    caption = bench.config.caption.model_copy(update={"candidates": 3})
    write = bench.config.write.model_copy(update={"images": images})
    run = bench.clean(shard, caption=caption, write=write, pace=ExecutionConfig(batch_size=4))
    with_bytes = [data for name, data in members if name[4:] in KINDS and data]
    assert {data: passes.decoded[data] for data in with_bytes} == dict.fromkeys(with_bytes, 1)
    assert passes.opened == len(with_bytes)
    ok = sum(row["status"] == "ok" for row in bench.rows(run, "samples"))
    for seen in passes.seen.values():
        assert len(seen) == ok
        assert set(seen.values()) == {1}


def test_the_counts_bite(bench: Bench, shard: Path, passes: Passes) -> None:
    """A filter that looks twice, and a stage that decodes again, are noticed."""

    class Wasteful:
        digest, preprocess = bench.scorer.digest, bench.scorer.preprocess
        count_tokens, scores = bench.scorer.count_tokens, bench.scorer.scores

        def score(self, images: Any, texts: Any) -> Any:
            bench.scorer.score(images, texts)
            return bench.scorer.score(images, texts)

    run, config = bench.run(shard)
    bench.cleaner(run, config, scorer=Wasteful()).clean(run.inputs[0], bench.ignore)
    assert set(passes.seen["captioner"].values()) == {1}
    assert set(passes.seen["filter"].values()) == {2}
    before = passes.opened
    decode(next(iter(passes.decoded)), LIMITS)
    assert passes.opened == before + 1


def test_each_model_gets_its_own_view(bench: Bench, shard: Path) -> None:
    """Models that preprocess differently see the same pictures, each in its own way."""
    coarse = replace(bench.scorer.preprocess, resample=int(Image.Resampling.NEAREST))
    seen: dict[str, list[torch.Tensor]] = {"captioner": [], "scorer": []}

    class Guest:
        scores = bench.scorer.scores

        def __init__(self, name: str, role: Any, preprocess: Any) -> None:
            self.digest, self.preprocess = role.digest, preprocess
            self._name, self._role = name, role

        def count_tokens(self, text: str) -> int:
            return bench.scorer.count_tokens(text)

        def caption(self, images: torch.Tensor, keys: Any, count: int) -> Any:
            seen[self._name] += list(images)
            return self._role.caption(images, keys, count)

        def score(self, images: torch.Tensor, texts: Any) -> Any:
            seen[self._name] += list(images)
            return self._role.score(images, texts)

    captioner = Guest("captioner", bench.captioner, bench.captioner.preprocess)
    run, config = bench.run(shard)
    cleaner = bench.cleaner(
        run, config, captioner=captioner, scorer=Guest("scorer", bench.scorer, coarse)
    )
    cleaner.clean(run.inputs[0], bench.ignore)
    with Image.open(io.BytesIO(dict(read_members(shard))["k00.jpeg"])) as opened:
        picture = opened.convert("RGB")
    assert torch.equal(seen["captioner"][0], bench.captioner.preprocess.resize(picture))
    assert torch.equal(seen["scorer"][0], coarse.resize(picture))
    assert len(seen["scorer"]) == len(seen["captioner"]) == 20


class Small:
    """A captioner on a device that holds two pictures at most."""

    def __init__(self, captioner: Any) -> None:
        self._captioner = captioner
        self.digest, self.preprocess = captioner.digest, captioner.preprocess

    def caption(self, images: Any, keys: list[str], count: int) -> Any:
        if len(images) > 2:
            raise torch.OutOfMemoryError("the device is full")
        return self._captioner.caption(images, keys, count)


def test_a_batch_that_does_not_fit_is_halved(
    bench: Bench, shard: Path, captioner: Any, without_scores: Callable[[list[Any]], list[Any]]
) -> None:
    whole = bench.clean(shard)
    run, config = bench.run(shard)
    cleaner = bench.cleaner(
        run, config, captioner=Small(captioner), pace=ExecutionConfig(batch_size=8)
    )
    done = cleaner.clean(run.inputs[0], bench.ignore)
    assert isinstance(done, Commit)
    assert done.environment["splits"] > 0
    assert bench.rows(run, "samples") == bench.rows(whole, "samples")
    assert without_scores(bench.rows(run, "texts")) == without_scores(bench.rows(whole, "texts"))


@pytest.fixture
def without_scores() -> Callable[[list[Any]], list[Any]]:
    def strip(rows: list[Any]) -> list[Any]:
        return [(row["index"], row["text_no"], row["text"]) for row in rows]

    return strip
