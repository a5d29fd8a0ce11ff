"""A shard cleaned with real tiny models: complete, counted, and done once only."""

import io
import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import pipeline.clean.batch
from models.roles.filter import Filter
from pipeline.clean.config import CleanConfig, identity
from pipeline.clean.line.attempt import AttemptLost
from pipeline.clean.prepare import ExecutionConfig
from pipeline.clean.screen import ScreenConfig
from pipeline.clean.shard import ShardCleaner
from shards.inputs.listing import list_inputs
from shards.inputs.reader import State
from shards.inputs.shard import InputChanged
from shards.run.attempt import Quarantine
from shards.run.commit import Commit, read_commit
from shards.run.run import Run, fingerprint
from shards.run.verify.run import verify_run
from shards.schema import SCHEMAS
from tests.support.bench import Bench

Row = dict[str, Any]
KINDS = ("jpeg", "png", "webp")


def left_behind(run: Run) -> list[str]:
    """Name all files but the run's own and the records of attempts."""
    own = {"run.json", "input.parquet", "recipe.yaml"}
    return [
        name for name in run.store.list() if name not in own and not name.startswith("attempts/")
    ]


def decode_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("read_ahead")]


# --- Whole shards. ---


def test_a_shard_of_all_kinds(bench: Bench, shard: Path) -> None:
    run = bench.clean(shard)
    done = read_commit(run, run.shards[0])
    assert done is not None
    counts, samples = done.counts, bench.rows(run, "samples")
    assert [row["key"] for row in samples] == [f"k{n:02}" for n in range(23)]
    assert counts.samples_in == 23 == counts.kept + counts.filtered + counts.rejected
    assert counts.rejected_by_reason == {
        "image_undecodable": 1,
        "image_empty": 1,
        "image_truncated": 1,
    }
    assert min(counts.kept, counts.filtered) > 0, "thresholds of 0.5 should part these texts"
    assert done.state.state is State.COMPLETE
    texts = bench.rows(run, "texts")
    without = {n for n in range(23) if n % 6 == 4}
    expected = [
        (n, number)
        for n in range(23)
        if n not in (5, 11, 17)
        for number in ([1] if n in without else [0, 1])
    ]
    assert [(row["index"], row["text_no"]) for row in texts] == expected
    assert {row["author"] for row in texts if row["text_no"]} == {bench.captioner.digest}
    assert all(row["author"] is None for row in texts if not row["text_no"])


def test_scores_are_those_of_the_models_alone(bench: Bench, shard: Path, members: Any) -> None:
    """Each text stands beside the score of its own picture."""
    run = bench.clean(shard)
    images = {name[:3]: data for name, data in members if name[4:] in KINDS}
    keys = [row["key"] for row in bench.rows(run, "samples")]
    for row in bench.rows(run, "texts"):
        with Image.open(io.BytesIO(images[keys[row["index"]]])) as opened:
            pixels = bench.scorer.preprocess.resize(opened.convert("RGB"))
        ((alone,),) = bench.scorer.score(pixels[None], [[row["text"]]])
        assert row["itm"] == pytest.approx(alone.itm, abs=1e-5)
        assert row["itc"] == pytest.approx(alone.itc, abs=1e-5)


def test_clean_shards_hold_the_kept(bench: Bench, shard: Path, members: Any) -> None:
    run = bench.clean(shard)
    originals = dict(members)
    written = bench.clean_members(run)
    keys = [row["key"] for row in bench.rows(run, "samples")]
    kept: dict[str, list[Row]] = {}
    for text, decision in zip(bench.rows(run, "texts"), bench.rows(run, "decisions"), strict=True):
        if decision["keep"]:
            kept.setdefault(keys[text["index"]], []).append(text)
    records = {
        Path(name).stem: json.loads(written[name]) for name in written if name.endswith(".json")
    }
    assert list(records) == list(kept)
    for key, texts in kept.items():
        kind = next(name for name in originals if name.startswith(key)).split(".")[1]
        extension = {"jpeg": "jpg"}.get(kind, kind)
        assert written[f"00000/{key}.{extension}"] == originals[f"{key}.{kind}"]
        chosen = texts[0] if texts[0]["origin"] == "web" else max(texts, key=lambda t: t["itm"])
        assert written[f"00000/{key}.txt"].decode() == chosen["text"]
        assert [text["text"] for text in records[key]["texts"]] == [text["text"] for text in texts]
        assert records[key]["source"] == originals[f"{key}.json"].decode()
        assert records[key]["run"] == run.fingerprint
    assert len(written) == 3 * len(kept)


def test_no_tar_where_nothing_is_kept(bench: Bench, shard: Path) -> None:
    strict = bench.config.judge.model_copy(update={"threshold": {"web": 2.0, "synthetic": 2.0}})
    run = bench.clean(shard, judge=strict)
    done = read_commit(run, run.shards[0])
    assert done is not None
    assert done.file("clean") is None
    assert done.counts.kept == 0


def test_write_clean_none(bench: Bench, shard: Path) -> None:
    write = bench.config.write.model_copy(update={"clean": "none"})
    run = bench.clean(shard, write=write)
    done = read_commit(run, run.shards[0])
    assert done is not None
    assert done.counts.kept > 0
    assert [file.table for file in done.files] == list(SCHEMAS)
    assert not run.store.list("data/clean")


def test_write_images_jpeg(bench: Bench, shard: Path) -> None:
    write = bench.config.write.model_copy(update={"images": "jpeg"})
    found = bench.clean_members(bench.clean(shard, write=write))
    assert {Path(name).suffix for name in found} == {".jpg", ".json", ".txt"}
    for name in found:
        if name.endswith(".jpg"):
            with Image.open(io.BytesIO(found[name])) as opened:
                assert opened.format == "JPEG"


@pytest.mark.parametrize("candidates", [1, 3])
def test_candidates(bench: Bench, shard: Path, candidates: int) -> None:
    caption = bench.config.captioners[0].model_copy(update={"candidates": candidates})
    run = bench.clean(shard, caption=caption)
    numbers: dict[int, list[int]] = {}
    for row in bench.rows(run, "texts"):
        numbers.setdefault(row["index"], []).append(row["text_no"])
    own = list(range(1, candidates + 1))
    assert numbers == {
        n: own if n % 6 == 4 else [0, *own] for n in range(23) if n not in (5, 11, 17)
    }


def test_damage_is_told_and_counted(bench: Bench, members: Any, tar_of: Any) -> None:
    data = tar_of(members)
    run = bench.clean(bench.put("cut", data[: len(data) // 2]))
    done = read_commit(run, "cut")
    assert done is not None
    assert done.state.damaged
    assert done.state.state is State.TRUNCATED
    counts = done.counts
    assert counts.rejected_by_reason["shard_truncated"] == 1
    assert counts.samples_in == counts.kept + counts.filtered + counts.rejected > 5


def test_a_committed_shard_is_not_done_again(bench: Bench, shard: Path) -> None:
    run = bench.clean(shard)
    before, first = run.store.list(), read_commit(run, run.shards[0])
    shard.unlink()
    size = bench.scorer.preprocess  # no model is needed
    absent: Any = SimpleNamespace(digest="", preprocess=size, scores=bench.scorer.scores)
    idle = ShardCleaner(run, bench.config, [absent], [absent], ExecutionConfig())
    assert idle.clean(run.inputs[0], bench.ignore) == first
    assert run.store.list() == before


def test_a_loser_gives_the_winners_commit(bench: Bench, shard: Path) -> None:
    run, config = bench.run(shard)
    won: list[Commit | Quarantine] = []

    def overtaken(*_: int) -> None:
        if not won:
            won.append(bench.cleaner(run, config).clean(run.inputs[0], bench.ignore))

    given = bench.cleaner(run, config, pace=ExecutionConfig(batch_size=4)).clean(
        run.inputs[0], overtaken
    )
    assert given == won[0] == read_commit(run, run.shards[0])
    assert isinstance(given, Commit)
    assert len(run.store.list("attempts")) == 2
    assert sorted(run.store.list("data")) == sorted(file.name for file in given.files)
    assert verify_run(run).problems == ()


# --- Errors. ---


@pytest.mark.parametrize("change", [b"", b"\0" * 4096, None])
def test_a_shard_replaced_after_listing(
    bench: Bench, shard: Path, tar_of: Any, members: Any, change: bytes | None
) -> None:
    run, config = bench.run(shard)
    data = tar_of(members[:9]) if change is None else tar_of(members) + change
    if change == b"":
        data = data[:-512]
    shard.write_bytes(data)
    expected = f"expected {run.inputs[0].size_bytes} bytes, found {len(data)} bytes"
    with pytest.raises(InputChanged, match=expected):
        bench.cleaner(run, config).clean(run.inputs[0], bench.ignore)
    assert left_behind(run) == []


def test_a_shard_whose_bytes_change_under_the_same_size(bench: Bench, shard: Path) -> None:
    run, config = bench.run(shard)
    content, facts = shard.read_bytes(), shard.stat()

    def change(*_: int) -> None:
        shard.write_bytes(content.replace(b"red", b"RED"))
        os.utime(shard, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1_000_000))

    with pytest.raises(InputChanged, match=r"changed since it was listed: expected mtime"):
        bench.cleaner(run, config, pace=ExecutionConfig(batch_size=4)).clean(run.inputs[0], change)
    assert left_behind(run) == []
    (listed,) = list_inputs([str(shard)])
    assert isinstance(bench.cleaner(run, config).clean(listed, bench.ignore), Commit)


def test_an_error_in_mid_shard_leaves_nothing_behind(bench: Bench, shard: Path) -> None:
    class Failing:
        digest, preprocess = bench.scorer.digest, bench.scorer.preprocess
        count_tokens, scores = bench.scorer.count_tokens, bench.scorer.scores
        calls = 0

        def score(self, images: Any, texts: Any) -> Any:
            self.calls += 1
            if self.calls == 3:
                raise RuntimeError("out of order")
            return bench.scorer.score(images, texts)

    run, config = bench.run(shard)
    cleaner = bench.cleaner(run, config, scorer=Failing(), pace=ExecutionConfig(batch_size=3))
    with pytest.raises(RuntimeError, match="out of order") as kept:
        cleaner.clean(run.inputs[0], bench.ignore)
    assert decode_threads() == [], "threads go on while the error is held"
    assert kept.value is not None
    assert left_behind(run) == []
    assert len(run.store.list("attempts")) == 1
    again = bench.cleaner(run, config).clean(run.inputs[0], bench.ignore)
    assert isinstance(again, Commit)
    assert again.counts.samples_in == 23
    assert verify_run(run).problems == ()


def test_an_error_in_a_decode_thread_is_raised(
    bench: Bench, shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(raw: Any, *_: Any) -> Any:
        raise MemoryError(raw.key)

    monkeypatch.setattr(pipeline.clean.batch, "screen", failing)
    run, config = bench.run(shard)
    with pytest.raises(AttemptLost, match="k00"):
        bench.cleaner(run, config).clean(run.inputs[0], bench.ignore)
    assert left_behind(run) == []
    assert decode_threads() == []


def test_a_shard_that_is_gone(bench: Bench, shard: Path) -> None:
    run, config = bench.run(shard)
    shard.unlink()
    with pytest.raises(FileNotFoundError):
        bench.cleaner(run, config).clean(run.inputs[0], bench.ignore)
    assert left_behind(run) == []


# --- What makes another run. ---


def test_identity_is_what_changes_the_output(config: CleanConfig) -> None:
    def named(
        config: CleanConfig, captioner: str = "a", scorer: str = "b", text: str = "txt"
    ) -> Any:
        written, scored = SimpleNamespace(digest=captioner), SimpleNamespace(digest=scorer)
        scored.scores = Filter.scores
        return identity(config, [written], [scored], text)

    first = named(config)
    assert str(config.captioners[0].model) not in json.dumps(first)
    changes = [
        named(config, "other"),
        named(config, "a", "other"),
        named(config, text="json:caption"),
        named(config.model_copy(update={"seed": 1})),
        named(config.model_copy(update={"dtype": "bf16"})),
        named(config.model_copy(update={"screen": ScreenConfig(min_side=3)})),
        *(
            named(config.model_copy(update={part: changed}))
            for part, changed in (
                ("caption", config.captioners[0].model_copy(update={"top_p": 0.8})),
                ("score", config.scorers[0].model_copy(update={"max_tokens": 20})),
                ("judge", config.judge.model_copy(update={"min_words": 2})),
                ("write", config.write.model_copy(update={"images": "jpeg"})),
            )
        ),
    ]
    prints = [fingerprint(one) for one in [first, *changes]]
    assert len(set(prints)) == len(prints)
    moved = config.captioners[0].model_copy(update={"model": "/elsewhere", "revision": "r"})
    assert named(config.model_copy(update={"caption": moved})) == first
