"""Each picture is decoded once and seen once by each model, in batches that fit."""

import io
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import pipeline.clean.prepare
from models.captioners.captioner import Caption, Refusal
from models.captioners.config import TransformersCaptionerConfig
from models.guests.picture import Prepared
from models.scorers.config import DualEncoderConfig
from models.scorers.scorer import TextScores
from pipeline.clean.judge import JudgeConfig
from pipeline.clean.prepare import ExecutionConfig
from pipeline.media.decode import decode
from shards.inputs.candidates import NAME, read_candidates
from shards.run.commit import Commit, read_commit
from shards.run.run import Run
from shards.run.verify.run import verify_run
from shards.store import Store
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
    caption = bench.config.captioners[0].model_copy(update={"candidates": 3})
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


class Picky:
    """A guest that takes pictures of even width alone, and says how wide they are."""

    digest = prepare_key = "picky"

    def __init__(self) -> None:
        self.prepared = 0

    def prepare(self, picture: Image.Image) -> Prepared:
        self.prepared += 1
        return Prepared(picture.width, 8)

    def caption(self, batch: Any, keys: Any, count: int) -> list[list[Caption] | Refusal]:
        assert len(keys) == len(batch)
        return [
            Refusal(f"{one.content} is odd")
            if one.content % 2
            else [Caption(f"{one.content} wide, {n}") for n in range(count)]
            for one in batch
        ]


class Measure:
    """A guest that scores a text by the width that it prepared, and by its own length."""

    digest = "measure"
    scores = ("width", "length")

    def __init__(self, prepare_key: str) -> None:
        self.prepare_key = prepare_key

    def prepare(self, picture: Image.Image) -> Prepared:
        raise AssertionError(f"{picture.size} is prepared already, by one who prepares alike")

    def score(self, batch: Any, texts: Any) -> list[list[TextScores]]:
        return [
            [TextScores((one.content, len(text)), len(text.split()), False) for text in group]
            for one, group in zip(batch, texts, strict=True)
        ]


def test_guests_beside_blip(bench: Bench, tar_of: Any, encode: Any, noise: Any) -> None:
    """One decode and one preparation for two guests; each text has each score; none is lost."""
    members = []
    for n in range(7):
        members.append((f"k{n}.png", encode(noise(60 + n, 48, seed=n), "PNG")))
        members.append((f"k{n}.txt", f"picture number {n}".encode()))
    shard = bench.put("guests", tar_of(members))
    picky, judge = Picky(), bench.config.judge
    sections = {
        "caption": (
            bench.config.caption,
            TransformersCaptionerConfig(kind="transformers", name="picky", model="m", candidates=2),
        ),
        "score": (
            bench.config.score,
            DualEncoderConfig(kind="dual_encoder", name="measure", model="m"),
        ),
        "judge": judge.model_copy(update={"threshold": judge.threshold | {"picky": 0.0}}),
    }
    models = [bench.captioner, picky], [bench.scorer, Measure("picky")]
    run = bench.clean(shard, models=models, pace=ExecutionConfig(batch_size=3), **sections)
    alone = bench.clean(shard, pace=ExecutionConfig(batch_size=3))
    assert picky.prepared == 7
    texts, samples = bench.rows(run, "texts"), bench.rows(run, "samples")
    of_blip = [row for row in texts if row["origin"] != "picky"]
    assert [row["text"] for row in of_blip] == [row["text"] for row in bench.rows(alone, "texts")]
    assert all(row["itm"] is not None for row in texts)
    others = [row for row in texts if row["origin"] == "picky"]
    assert [row["text_no"] for row in others] == [2, 3] * 7
    odd = [row for row in others if row["index"] % 2]
    assert {(row["text"], row["author"]) for row in odd} == {("", None)}
    assert {row["text"] for row in others if not row["index"]} == {"60 wide, 0", "60 wide, 1"}
    refused = [row for row in samples if "caption_refused" in row["notes"]]
    assert [(row["index"], row["detail"]) for row in refused] == [
        (n, f"picky: {60 + n} is odd") for n in (1, 3, 5)
    ]
    done = read_commit(run, run.shards[0])
    assert done is not None
    assert {name: each.given for name, each in done.counts.texts.items()} == {
        "web": 7,
        "synthetic": 7,
        "picky": 14,
    }
    reasons = Counter(row["reason"] for row in bench.rows(run, "decisions"))
    assert reasons["caption_refused"] == 6
    scores = bench.rows(run, "scores")
    assert {row["scorer"] for row in scores} == {"measure"}
    lengths = {
        (row["index"], row["text_no"]): row["value"] for row in scores if row["name"] == "length"
    }
    assert lengths == {(row["index"], row["text_no"]): len(row["text"]) for row in texts}
    widths = {(row["index"], row["value"]) for row in scores if row["name"] == "width"}
    assert widths == {(n, 60 + n) for n in range(7)}


def test_candidates_come_last_and_a_guest_may_decide(
    bench: Bench, tar_of: Any, encode: Any, noise: Any, tmp_path: Path
) -> None:
    members = []
    for n in range(4):
        members.append((f"k{n}.png", encode(noise(60 + n, 48, seed=n), "PNG")))
        members.append((f"k{n}.txt", b"web" * n or b"w"))
    shard = bench.put("given", tar_of(members))
    columns = {"key": ["k1", "k3", "k1", "k9"], "text": ["a", "long text", "b", "lost"]}
    pq.write_table(pa.table(columns | {"author": ["human"] * 4}), tmp_path / "given.parquet")
    candidates, _ = read_candidates(str(tmp_path / "given.parquet"), 1_000)
    models = [Picky()], [Measure("picky")]
    guest = TransformersCaptionerConfig(kind="transformers", name="picky", model="m")
    threshold = {"web": 5, "picky": 0, "human": 2}
    run, config = bench.run(
        shard,
        models=models,
        caption=guest,
        score=DualEncoderConfig(kind="dual_encoder", name="measure", model="m"),
        judge=JudgeConfig(by="measure.length", threshold=threshold),
    )
    named = run.identity | {"candidates": candidates.identity}
    run = Run.create(Store(str(tmp_path / "run")), "", named, {}, run.inputs)
    run.store.create(NAME, candidates.to_parquet())
    bench.cleaner(run, config, models=models).clean(run.inputs[0], bench.ignore)
    assert verify_run(run).problems == ()
    texts, decisions = bench.rows(run, "texts"), bench.rows(run, "decisions")
    human = [(r["index"], r["text_no"], r["text"]) for r in texts if r["origin"] == "human"]
    assert human == [(1, 2, "a"), (1, 3, "b"), (3, 2, "long text")]
    assert {row["itm"] for row in texts} == {None}
    assert all(row["tokens"] is not None for row in texts)
    kept = {
        (row["origin"], row["text"])
        for row, decision in zip(texts, decisions, strict=True)
        if decision["keep"]
    }
    assert kept == {
        ("web", "webweb"),
        ("web", "webwebweb"),
        ("picky", "60 wide, 0"),
        ("picky", "62 wide, 0"),
        ("human", "long text"),
    }
    assert bench.clean_members(run)["given/k3.txt"] == b"webwebweb"
