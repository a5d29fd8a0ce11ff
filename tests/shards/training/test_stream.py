"""The stream gives each sample of an epoch once, in an order that no number of workers changes."""

import random
import tracemalloc
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.toy.world import ToyWorldConfig, write_toy_world
from shards.inputs.reader import ShardReader, open_shard
from shards.training.order import lanes_of
from shards.training.source import Source, SourceConfig
from shards.training.source_reader import open_source
from shards.training.stream import Example, TrainingStream

Batch = list[Example]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 47 samples in shards of 10."""
    folder = tmp_path_factory.mktemp("world")
    write_toy_world(folder, ToyWorldConfig(samples=47, samples_per_shard=10, image_px=32))
    return folder


def opened(*folders: Path, repeats: tuple[float, ...] = ()) -> list[Source]:
    return [
        open_source(SourceConfig(shards=(str(folder),), repeat=repeat))
        for folder, repeat in zip(folders, repeats or (1.0,) * len(folders), strict=True)
    ]


def batches(stream: TrainingStream, count: int, rows: int) -> list[Batch]:
    return [
        [stream.next_of(lane) for lane in stream.lanes for _ in range(rows)] for _ in range(count)
    ]


def epoch(stream: TrainingStream, number: int = 0) -> list[Example]:
    """Take what an epoch has for the lanes of a stream."""
    return [
        stream.next_of(lane)
        for lane in stream.lanes
        for _ in range(stream.rows_of_lane(lane, number))
    ]


def members(folder: Path) -> dict[str, tuple[bytes, str]]:
    """Read the images and texts of a folder's tars by key, without the code under test."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with open_shard(str(path)) as file:
            for raw in ShardReader(file):
                assert raw.image is not None
                assert raw.text is not None
                found[f"{path.stem}/{raw.key}"] = (raw.image, raw.text.decode())
    return found


def test_an_epoch_holds_each_pair_once(world: Path) -> None:
    truth = members(world)
    stream = TrainingStream(opened(world), seed=0, shuffle=4)
    for number in range(3):
        found = epoch(stream, number)
        assert {e.key: (e.image, e.text) for e in found} == truth
        assert len(found) == len(truth) == stream.rows_per_epoch
        assert {e.epoch for e in found} == {number}


@settings(max_examples=8, deadline=None)
@given(
    first=st.sampled_from([1, 2, 3]),
    second=st.sampled_from([1, 2, 3]),
    stop=st.integers(0, 19),
    rows=st.integers(1, 2),
    shuffle=st.sampled_from([1, 7, 1000]),
)
def test_no_sample_twice_and_none_lost_over_workers_and_a_restart(
    world: Path, first: int, second: int, stop: int, rows: int, shuffle: int
) -> None:
    sources, count = opened(world), 20

    def go(workers: int, steps: int, positions: dict[int, int] | None) -> Any:
        """Run workers side by side; give the global batches, and where all lanes are then."""
        streams = [
            TrainingStream(sources, 5, 6, shuffle, lanes_of(worker, workers, 6), positions)
            for worker in range(workers)
        ]
        parts = [batches(stream, steps, rows) for stream in streams]
        after = {lane: taken for stream in streams for lane, taken in stream.positions.items()}
        return [list(chain(*step)) for step in zip(*parts, strict=True)], after

    alone, end = go(1, count, None)
    before, stopped = go(first, stop, None)
    after, ended = go(second, count - stop, stopped)
    assert before + after == alone
    assert ended == end
    truth = members(world).keys()
    given_: Counter[tuple[int, str]] = Counter()
    for example in chain(*before, *after):
        given_[example.epoch, example.key] += 1
    assert set(given_.values()) == {1}
    for number in range(count * rows * 6 // len(truth)):
        assert {key for at, key in given_ if at == number} == truth


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_restart_within_an_epoch_with_other_workers_completes_it(
    world: Path, workers: int
) -> None:
    sources, truth = opened(world), members(world).keys()
    first = TrainingStream(sources, 1, shuffle=3)
    seen = [example.key for batch in batches(first, 2, 1) for example in batch]
    for worker in range(workers):
        mine = lanes_of(worker, workers)
        stream = TrainingStream(sources, 1, shuffle=3, mine=mine, positions=first.positions)
        for lane in stream.lanes:
            left = stream.rows_of_lane(lane, 0) - stream.positions[lane]
            seen += [stream.next_of(lane).key for _ in range(left)]
    assert sorted(seen) == sorted(truth)


def test_a_fifth_of_a_source_in_each_of_five_epochs(world: Path) -> None:
    stream = TrainingStream(opened(world, repeats=(0.2,)), seed=2, shuffle=4)
    epochs = [epoch(stream, number) for number in range(5)]
    assert sorted(e.key for found in epochs for e in found) == sorted(members(world))
    assert max(map(len, epochs)) - min(map(len, epochs)) <= 1


def test_a_source_may_come_twice_in_an_epoch(world: Path) -> None:
    found = epoch(TrainingStream(opened(world, repeats=(2,)), seed=2, shuffle=4))
    counts = Counter(e.key for e in found)
    assert counts.keys() == members(world).keys()
    assert set(counts.values()) == {2}
    assert len({e.seed for e in found}) == len(found)


def test_sources_are_mixed_as_they_are_weighted(tmp_path: Path) -> None:
    for name, samples in (("web", 600), ("human", 100)):
        config = ToyWorldConfig(samples=samples, seed=len(name), image_px=32)
        write_toy_world(tmp_path / name, config)
    sources = opened(tmp_path / "web", tmp_path / "human", repeats=(0.5, 1.0))
    stream = TrainingStream(sources, seed=0, lanes=2, shuffle=20)
    assert stream.rows_per_epoch == 400
    drawn = [example.source for batch in batches(stream, 200, 1) for example in batch]
    assert Counter(drawn) == {0: 300, 1: 100}
    for start in range(0, 400, 100):  # 25 of 100 are expected, with a deviation below 4
        assert 8 < drawn[start : start + 100].count(1) < 42


def test_one_text_of_an_image_and_all_in_turn(tmp_path: Path, tar_bytes: Any) -> None:
    texts = b'{"texts": ["one", "two", {"text": "three", "origin": "web"}]}'
    pairs = [
        (f"k{n:02}.{e}", d) for n in range(30) for e, d in (("jpg", b"%d" % n), ("json", texts))
    ]
    (tmp_path / "0.tar").write_bytes(tar_bytes(pairs))
    stream = TrainingStream(opened(tmp_path), seed=0, lanes=3)
    counts: Counter[tuple[str, str]] = Counter()
    for number in range(20):
        found = epoch(stream, number)
        assert len({e.key for e in found}) == len(found) == 30
        counts.update((e.text, e.chosen.origin) for e in found)
    assert counts.keys() == {("one", "human"), ("two", "human"), ("three", "web")}
    assert all(140 < count < 260 for count in counts.values())  # of 600, a deviation of 12


def test_seeds_and_identities(world: Path) -> None:
    stream = TrainingStream(opened(world), seed=0)
    found = [e for number in range(2) for e in epoch(stream, number)]
    assert len({e.seed for e in found}) == len(found)
    assert all(0 <= value < 2**63 for e in found for value in (e.seed, e.image_id))
    assert len({(e.image, e.image_id) for e in found}) == len({e.image for e in found}) == 47
    assert len({e.image_id for e in found}) == 47
    other = epoch(TrainingStream(opened(world), seed=1))
    assert [e.key for e in other] != [e.key for e in found[:47]]
    assert not {e.seed for e in other} & {e.seed for e in found}


def test_few_samples_are_held(tmp_path: Path, tar_bytes: Any) -> None:
    """600 samples of 20 kB go by, and no more are in memory than may wait."""
    rng = random.Random(0)
    for shard in range(6):
        pairs = []
        for n in range(100):
            pairs += [(f"k{n:02}.jpg", rng.randbytes(20_000)), (f"k{n:02}.txt", b"text")]
        (tmp_path / f"{shard}.tar").write_bytes(tar_bytes(pairs))
    sources = opened(tmp_path)

    def peak(lanes: int, shuffle: int) -> int:
        stream = TrainingStream(sources, 0, lanes, shuffle)
        tracemalloc.start()
        try:
            for _ in range(600 // lanes):
                for lane in stream.lanes:
                    stream.next_of(lane)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            stream.close()

    bare = peak(4, 1)
    assert peak(4, 20) < bare + 4 * 20 * 21_000 < 600 * 20_000 / 2


def test_a_restart_does_not_open_what_is_finished(
    tmp_path: Path, put_shards: Callable[[Path, int, int], None]
) -> None:
    put_shards(tmp_path, 20, 10)
    sources = opened(tmp_path)
    whole = [e for batch in batches(TrainingStream(sources, 0, 1, 5), 200, 1) for e in batch]
    taken = 120
    left = Counter(e.key.partition("/")[0] for e in whole[taken:])
    for path in tmp_path.glob("*.tar"):
        if path.stem not in left:
            path.unlink()
    assert len(list(tmp_path.glob("*.tar"))) < 15
    stream = TrainingStream(sources, 0, 1, 5, positions={0: taken})
    assert [stream.next_of(0) for _ in range(200 - taken)] == whole[taken:]


@pytest.fixture
def put_shards(tar_bytes: Any) -> Callable[[Path, int, int], None]:
    """Write so many tars of so many samples."""

    def put(folder: Path, shards: int, samples: int) -> None:
        for shard in range(shards):
            pairs = []
            for n in range(samples):
                pairs += [(f"k{n:02}.jpg", b"%d %d" % (shard, n)), (f"k{n:02}.txt", b"text")]
            (folder / f"{shard:03}.tar").write_bytes(tar_bytes(pairs))

    return put


def test_a_tar_that_changed_is_noticed_at_its_last_row(
    tmp_path: Path, put_shards: Callable[[Path, int, int], None]
) -> None:
    put_shards(tmp_path, 1, 10)
    stream = TrainingStream(opened(tmp_path), 0, lanes=2)
    path = tmp_path / "000.tar"
    path.write_bytes(path.read_bytes().replace(b"0 3", b"9 9"))
    with pytest.raises(ValueError, match="changed since it was opened"):
        epoch(stream)


def test_fewer_samples_than_lanes(
    tmp_path: Path, put_shards: Callable[[Path, int, int], None]
) -> None:
    put_shards(tmp_path, 1, 5)
    stream = TrainingStream(opened(tmp_path), 0)
    found = [e for batch in batches(stream, 10, 1) for e in batch]  # 24 epochs of 5
    assert Counter((e.epoch, e.key) for e in found) == {
        (number, f"000/k{n:02}"): 1 for number in range(24) for n in range(5)
    }


def test_epochs_done(world: Path) -> None:
    stream = TrainingStream(opened(world), 0, lanes=1)
    assert stream.epochs_at(stream.positions) == 0
    assert TrainingStream(opened(world), 0, lanes=1, positions={}).positions == {0: 0}
    epoch(stream)
    assert stream.epochs_at(stream.positions) == 1


def test_positions_that_do_not_fit_are_refused(world: Path) -> None:
    sources = opened(world)
    with pytest.raises(ValueError, match=r"no position is given of lanes \[2, 3\] \(of 4\)"):
        TrainingStream(sources, 0, lanes=4, positions={0: 1, 1: 1})
    with pytest.raises(ValueError, match="not among 0 to 3"):
        TrainingStream(sources, 0, lanes=4, mine=range(2, 6))
