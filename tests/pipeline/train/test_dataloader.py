"""The feed gives the same batches whatever the number of threads, workers and restarts."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from models.blip.preprocess import Preprocess
from models.blip.tokenizer import WordPiece, normalise, train
from pipeline.clean.export import WriteConfig
from pipeline.clean.judge import JudgeConfig
from pipeline.media.decode import DecodeLimits
from pipeline.toy.tasks import ToyTasksConfig, write_statements
from pipeline.toy.world import ToyWorldConfig, corpus, write_toy_world
from pipeline.train.dataloader import Batch, BatchLoader, LoaderError, TextTransform, shuffle_pair
from shards.inputs.shard import InputChanged
from shards.run.snapshot import write_snapshot
from shards.training.annotation import SourceText
from shards.training.order import lanes_of
from shards.training.source import Source, SourceConfig
from shards.training.source_reader import open_source, read_part
from shards.training.stream import Example, TrainingStream
from tests.support.bench import Bench

LIMITS = DecodeLimits(min_side=8, max_pixels=10**6, max_aspect=10)
SIDE = 16


@pytest.fixture(scope="module")
def words() -> WordPiece:
    return train(corpus(), 200)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("world")
    write_toy_world(folder, ToyWorldConfig(samples=60, samples_per_shard=20, image_px=32))
    return open_source(SourceConfig(shards=(str(folder),)))


def picture(image: Image.Image, seed: int) -> Tensor:
    """Resize a picture and, as an augmentation would, let the seed decide something."""
    pixels = Preprocess(SIDE, SIDE).resize(image)
    pixels[:, 0, 0] = seed % 251
    return pixels


@pytest.fixture
def take(words: WordPiece) -> Callable[..., list[Batch]]:
    """Take batches of a feed over sources, and close it."""

    def batches(source: Source, count: int, rows: int = 1, **other: Any) -> list[Batch]:
        streaming = {
            name: other.pop(name) for name in ("lanes", "mine", "positions") if name in other
        }
        stream = TrainingStream([source], seed=4, shuffle=5, **streaming)
        wording = other.pop("wording", TextTransform(words, 20))
        with closing(BatchLoader(stream, picture, wording, rows, LIMITS, **other)) as feed:
            return list(islice(feed, count))

    return batches


def same(one: Batch, other: Batch) -> None:
    for name in ("pixels", "ids", "mask", "image_ids", "text_hashes"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert (one.texts, one.keys) == (other.texts, other.keys)
    assert (one.positions, one.left_out) == (other.positions, other.left_out)


def plain(batch: Batch) -> list[tuple[Any, ...]]:
    """Give a batch row by row, without what pads it."""
    return [
        (
            batch.keys[row],
            batch.texts[row],
            batch.pixels[row].numpy().tobytes(),
            batch.ids[row][batch.mask[row]].tolist(),
            int(batch.image_ids[row]),
            int(batch.text_hashes[row]),
        )
        for row in range(len(batch))
    ]


def test_a_batch_holds_what_the_stream_gives(world: Source, words: WordPiece, take: Any) -> None:
    wording = TextTransform(words, 20, lambda text: f"there is {normalise(text)}")
    (batch,) = take(world, 1, rows=2, wording=wording)
    stream = TrainingStream([world], seed=4, shuffle=5)
    examples = [stream.next_of(lane) for lane in stream.lanes for _ in range(2)]
    texts = [f"there is {normalise(e.text)}" for e in examples]
    assert batch.keys == [e.key for e in examples]
    assert batch.texts == texts
    assert batch.image_ids.tolist() == [e.image_id for e in examples]
    assert batch.pixels.shape == (24, 3, SIDE, SIDE)
    assert batch.pixels.dtype == torch.uint8
    for row, example in enumerate(examples):
        assert batch.pixels[row, 0, 0, 0] == example.seed % 251
        ids = [words.cls_id, *words.encode([texts[row]])[0], words.sep_id]
        assert batch.ids[row][batch.mask[row]].tolist() == ids
        assert set(batch.ids[row][~batch.mask[row]].tolist()) <= {words.pad_id}
    assert batch.positions == stream.positions == dict.fromkeys(range(12), 2)
    assert batch.left_out == {}


def test_pictures_are_upright_rgb(words: WordPiece, tmp_path: Path, tar_of: Any) -> None:
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    grey.save(tmp_path / "k.png")
    members = [("k.png", (tmp_path / "k.png").read_bytes()), ("k.txt", b"grey")]
    (tmp_path / "0.tar").write_bytes(tar_of(members))
    stream = TrainingStream(
        [open_source(SourceConfig(shards=(str(tmp_path / "0.tar"),)))], 0, lanes=1
    )
    loader = BatchLoader(stream, lambda image, _: _as_is(image), TextTransform(words, 8), 1, LIMITS)
    with closing(loader) as feed:
        (batch,) = islice(feed, 1)
    assert torch.equal(batch.pixels[0], _as_is(grey.convert("RGB")))


def _as_is(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (5, 2)])
def test_threads_change_nothing(damaged: Source, take: Any, threads: int, ahead: int) -> None:
    here = take(damaged, 12, threads=threads, ahead=ahead)
    for one, other in zip(here, take(damaged, 12), strict=True):
        same(one, other)


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_share_each_global_batch(damaged: Source, take: Any, workers: int) -> None:
    alone = take(damaged, 8, rows=2)
    parts = [take(damaged, 8, rows=2, mine=lanes_of(w, workers)) for w in range(workers)]
    for whole, *shares in zip(alone, *parts, strict=True):
        assert list(chain(*map(plain, shares))) == plain(whole)
        assert whole.positions == {k: v for share in shares for k, v in share.positions.items()}
        assert whole.left_out == sum((share.left_out for share in shares), Counter())


@pytest.mark.parametrize("stop", [1, 4])
def test_it_goes_on_from_the_positions_of_a_batch(damaged: Source, take: Any, stop: int) -> None:
    """What was looked at ahead of the last batch is not lost."""
    alone = take(damaged, 9)
    positions = take(damaged, stop)[-1].positions
    for one, other in zip(alone[stop:], take(damaged, 9 - stop, positions=positions), strict=True):
        same(one, other)


@pytest.fixture
def damaged(tmp_path: Path, tar_of: Any, noise: Any, encode: Any) -> Source:
    """Write 40 samples of which 4 cannot be used."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    for shard in range(2):
        members = []
        for n in range(20):
            image = encode(noise(20, 20, seed=20 * shard + n), "PNG")
            image = {3: b"no picture", 11: image[:200]}.get(n, image) if shard else image
            text = {5: b" ... ", 7: b"!"}.get(n, b"a red ring %d" % n) if not shard else b"a star"
            members += [(f"k{n:02}.png", image), (f"k{n:02}.txt", text)]
        (folder / f"{shard}.tar").write_bytes(tar_of(members))
    return open_source(SourceConfig(shards=(str(folder),)))


BROKEN = {"0/k05", "0/k07", "1/k03", "1/k11"}


def test_what_cannot_be_used_is_counted_and_shifts_its_own_lane_only(
    damaged: Source, take: Any
) -> None:
    """The oracle: each lane is its stream's, without the broken ones."""
    batches = take(damaged, 10)  # 120 rows: three epochs
    stream, taken = TrainingStream([damaged], seed=4, shuffle=5), Counter[int]()
    for step, batch in enumerate(batches):
        expected, refused = [], 0
        for lane in stream.lanes:
            while (example := stream.next_of(lane)).key in BROKEN:
                taken[lane] += 1
                refused += 1
            taken[lane] += 1
            expected.append(example.key)
        assert batch.keys == expected, step
        assert batch.positions == taken
        assert batch.left_out.total() == refused
    counts = sum((batch.left_out for batch in batches), Counter[str]())
    assert counts.keys() == {"image_undecodable", "image_truncated", "text_empty"}


def test_the_feed_counts_what_its_batches_passed_over(damaged: Source, words: WordPiece) -> None:
    stream = TrainingStream([damaged], seed=4)
    with closing(BatchLoader(stream, picture, TextTransform(words, 8), 1, LIMITS)) as feed:
        counts = Counter[str]()
        assert feed.rows_per_epoch == damaged.rows == 40
        for batch in islice(feed, 10):
            counts += batch.left_out
            assert feed.left_out == counts


def test_a_lane_of_nothing_is_an_error(tmp_path: Path, tar_of: Any, take: Any) -> None:
    members = [(f"k{n}.{e}", b"bad") for n in range(30) for e in ("jpg", "txt")]
    (tmp_path / "0.tar").write_bytes(tar_of(members))
    source = open_source(SourceConfig(shards=(str(tmp_path / "0.tar"),)))
    with pytest.raises(LoaderError, match=r"lane 0 gave nothing.*image_undecodable: 100\); check"):
        take(source, 1)


def test_errors_come_out_where_batches_are_taken(world: Source, words: WordPiece) -> None:
    def broken(_image: Image.Image, _seed: int) -> Tensor:
        raise ZeroDivisionError("a bug")

    feed = BatchLoader(TrainingStream([world], 4), broken, TextTransform(words, 8), 1, LIMITS)
    with pytest.raises(ZeroDivisionError):
        next(iter(feed))
    assert list(feed) == []


def test_a_changed_tar_ends_it(tmp_path: Path, world: Source, take: Any) -> None:
    path = tmp_path / "00000.tar"
    path.write_bytes(Path(world.parts[0].url).read_bytes())
    source = open_source(SourceConfig(shards=(str(path),)))
    path.write_bytes(Path(world.parts[1].url).read_bytes())
    with pytest.raises(InputChanged):
        take(source, 5)


def test_it_works_ahead_within_bounds_and_ends_its_threads(world: Source, words: WordPiece) -> None:
    before = set(threading.enumerate())
    looked, enough = 0, threading.Event()

    def counted(image: Image.Image, seed: int) -> Tensor:
        nonlocal looked
        looked += 1
        if looked == 12 * 4:
            enough.set()
        return picture(image, seed)

    stream = TrainingStream([world], 4)
    feed = BatchLoader(stream, counted, TextTransform(words, 8), 1, LIMITS, threads=1, ahead=3)
    batches = iter(feed)
    next(batches)
    assert enough.wait(20)  # it goes on while nobody takes a batch
    time.sleep(0.3)  # time enough to go too far
    # taken, waiting, in the hand of the one who makes them, and looked at for the next
    assert looked <= 12 * (1 + 3 + 1 + 1)
    feed.close()
    feed.close()
    assert set(threading.enumerate()) <= before
    assert list(batches) == list(feed) == []


def test_a_lane_that_is_refused_lets_no_other_pile_up(
    tmp_path: Path, tar_of: Any, noise: Any, encode: Any, words: WordPiece
) -> None:
    """Of the first lane 80 pictures in a row are broken, of the others none."""
    good, path = encode(noise(20, 20), "PNG"), tmp_path / "0.tar"

    def stream(broken: set[str]) -> TrainingStream:
        keys = [f"k{n:03}" for n in range(600)]
        pictures = [(f"{key}.png", b"bad" if key in broken else good) for key in keys]
        texts = [(f"{key}.txt", b"a star") for key in keys]
        path.write_bytes(tar_of(list(chain(*zip(pictures, texts, strict=True)))))
        return TrainingStream([open_source(SourceConfig(shards=(str(path),)))], 4, lanes=6)

    probe = stream(set())
    broken = {probe.next_of(0).key.rpartition("/")[2] for _ in range(80)}
    lock, looked, surplus = threading.Lock(), 0, []

    def counted(image: Image.Image, seed: int) -> Tensor:
        nonlocal looked
        with lock:
            looked += 1
        return picture(image, seed)

    text = TextTransform(words, 8)
    with closing(
        BatchLoader(stream(broken), counted, text, 2, LIMITS, threads=3, ahead=1)
    ) as loader:
        for step, batch in enumerate(islice(loader, 3), 1):
            surplus.append(looked - 12 * step)
            assert step > 1 or batch.left_out.total() == 80
    # one batch waits, one is made, each lane has two batches' rows at most, and one in flight
    assert max(surplus) <= 12 * (1 + 1 + 2 + 1)


def test_a_cleaned_run_feeds_alike_from_clean_tars_and_through_the_decisions(
    bench: Bench, shard: Path, take: Any
) -> None:
    """A real cleaning by real small models, its clean tars written or not."""
    judge = JudgeConfig(threshold={"web": 0.0, "synthetic": 0.0})
    runs = [
        bench.clean(shard, write=WriteConfig(clean=clean), judge=judge) for clean in ("tar", "none")
    ]
    for run in runs:
        write_snapshot(run)
    first, second = (open_source(SourceConfig(run=run.store.url())) for run in runs)
    again = open_source(SourceConfig(run=runs[0].store.url(), read="input"))
    assert [part.is_clean for source in (first, second, again) for part in source.parts] == [
        True,
        False,
        False,
    ]
    kept = [list(chain(*map(read_part, source.parts))) for source in (first, second, again)]
    assert kept[0] == kept[1] == kept[2]
    assert {text.origin for sample in kept[0] for text in sample.texts} == {"web", "synthetic"}
    for one, other in zip(take(first, 4, lanes=3), take(second, 4, lanes=3), strict=True):
        same(one, other)
        assert one.left_out == {}


def test_bounds_that_are_refused(world: Source, words: WordPiece) -> None:
    with pytest.raises(ValueError, match="at least 1, found 0, 2 and 4"):
        BatchLoader(TrainingStream([world], 4), picture, TextTransform(words, 8), 0, LIMITS)


def test_pairs_change_sides_with_the_words_for_them() -> None:
    words = "the left ring is red and something on the right is leftover"
    turned = "the right ring is red and something on the left is leftover"
    seeds = {}
    for seed in range(8):
        given = Example(0, "k", b"a", SourceText(words, "human", label=True), 0, seed, 0, (), b"b")
        example = shuffle_pair(given)
        assert example.chosen.label
        seeds[example.image, example.right, example.text] = seed
    assert seeds.keys() == {(b"a", b"b", words), (b"b", b"a", turned)}


def test_a_pair_is_left_out_if_either_picture_is_missing(words: WordPiece, tmp_path: Path) -> None:
    path = write_statements(tmp_path, ToyTasksConfig(samples=24, image_px=32))
    for gone in ("000003-left.png", "000007-right.png"):
        (tmp_path / "images" / gone).unlink()
    source = open_source(SourceConfig(annotations=str(path)))
    stream = TrainingStream([source], 0, lanes=1)
    with closing(BatchLoader(stream, picture, TextTransform(words, 20), 22, LIMITS)) as feed:
        (batch,) = islice(feed, 1)
        assert feed.left_out == {"image_missing": 2}
    assert batch.right is not None
    assert batch.right.shape == batch.pixels.shape == (22, 3, SIDE, SIDE)
    assert not {"000000003", "000000007"} & {key.rpartition("/")[2] for key in batch.keys}
    assert len({text.label for text in batch.chosen}) == 2
