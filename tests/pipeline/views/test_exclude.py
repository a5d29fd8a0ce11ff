"""A view that leaves samples out: its decisions, its counts, and what verify says of it."""

import io
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.views import group
from pipeline.views.dedup.candidates import read_candidates
from pipeline.views.exclude import ExclusionRequest, exclude
from shards.errors import DamagedFile
from shards.run.commit import TextCounts, total_counts
from shards.run.data import read_data
from shards.run.exclusion import read_groups
from shards.run.run import Run
from shards.run.snapshot import table_files
from shards.run.verify.garbage import find_garbage
from shards.run.verify.run import verify_run
from shards.run.view import View, ViewError, open_view
from shards.schema import GROUPS
from shards.store import Store
from tests.support.hashed_run import Picture, hashed_run, stranger

REQUEST = ExclusionRequest("less", {"list": "x"})


def picture(key: str, itm: float = 0.9) -> Picture:
    return Picture(key, key, stranger(len(key)), itm=itm)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    first = [picture("a"), picture("low", 0.2), picture("c")]
    return hashed_run(tmp_path / "run", first, [picture("d")])


def groups(*places: tuple[str, int], reason: str = "skipped") -> pa.Table:
    rows = [
        {"group": 0, "shard": shard, "index": index, "reason": reason} for shard, index in places
    ]
    return pa.Table.from_pylist(rows, schema=GROUPS)


def decided(run: Run, view: View) -> list[tuple[str, int, bool, str]]:
    tables = [read_data(run, file) for file in table_files(view.shards, "decisions")]
    return [
        (row["shard"], row["index"], row["keep"], row["reason"])
        for table in tables
        for row in table.to_pylist()
    ]


def left_out(run: Run, *places: tuple[str, int], base: str | None = None) -> View:
    return exclude(run, open_view(run, base), REQUEST, groups(*places), lambda _: None)


def test_texts_of_what_is_left_out_have_its_reason(run: Run) -> None:
    view = left_out(run, ("000", 0), ("001", 0))
    assert decided(run, view) == [
        ("000", 0, False, "skipped"),
        ("000", 1, False, "itm_below_threshold"),
        ("000", 2, True, "kept"),
        ("001", 0, False, "skipped"),
    ]
    counts = total_counts(shard.counts for shard in view.shards)
    assert (counts.samples_in, counts.kept, counts.filtered, counts.rejected) == (4, 1, 3, 0)
    assert counts.texts == {"web": TextCounts(given=4, kept=1)}
    assert verify_run(run).problems == ()
    assert all(keep for _, index, keep, _ in decided(run, open_view(run)) if index != 1)


def test_what_a_view_leaves_out_stays_out_of_one_on_it(run: Run) -> None:
    left_out(run, ("000", 0))
    second = ExclusionRequest("still_less", {"list": "y"})
    more = groups(("001", 0), reason="duplicate_image")
    view = exclude(run, open_view(run, "less"), second, more, lambda _: None)
    assert [reason for *_, reason in decided(run, view)] == [
        "skipped",
        "itm_below_threshold",
        "kept",
        "duplicate_image",
    ]
    assert view.record is not None
    assert read_groups(run, view.excluded)["group"].to_pylist() == [0, 1]
    assert verify_run(run).problems == ()


@pytest.mark.parametrize("most", [1, 3, 100])
def test_small_shards_share_files_and_come_out_as_each_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    shards = [[picture("a"), picture("low", 0.2), picture("c")][: 1 + n % 3] for n in range(6)]
    run = hashed_run(tmp_path / "run", *shards)
    monkeypatch.setattr(group, "MOST_TEXTS", most)
    view = left_out(run, ("001", 0), ("002", 2), ("005", 0))
    assert len(table_files(view.shards, "decisions")) == {1: 6, 3: 4, 100: 1}[most]
    own = decided(run, open_view(run))
    out = {("001", 0), ("002", 2), ("005", 0)}
    assert decided(run, view) == [
        row if row[:2] not in out else (*row[:2], False, "skipped") for row in own
    ]
    monkeypatch.setattr(group, "MOST_TEXTS", 4)  # other groups than those that it stands on
    second = ExclusionRequest("still_less", {"list": "y"})
    above = exclude(run, view, second, groups(("003", 0)), lambda _: None)
    out.add(("003", 0))
    assert [row[:2] for row in decided(run, above) if row[3] == "skipped"] == sorted(out)
    assert [shard.counts.kept for shard in above.shards] == [1, 0, 1, 0, 1, 1]
    reads = Counter[str]()
    real = Store.read

    def read(self: Store, name: str, *size: Any) -> bytes:
        reads[name] += 1
        return real(self, name, *size)

    monkeypatch.setattr(Store, "read", read)
    assert verify_run(run).problems == ()
    assert [count for name, count in reads.items() if "groups-" in name] == [2, 2]  # not a shard


def test_what_is_kept_is_read_of_each_shard_that_shares_a_file(tmp_path: Path) -> None:
    run = hashed_run(tmp_path / "run", [picture("a")], [picture("bb"), picture("ccc")])
    view = left_out(run, ("001", 0))
    assert len(table_files(view.shards, "decisions")) == 1
    kept = read_candidates(run, view, "first")
    assert list(zip(kept.shard, kept.index, strict=True)) == [(0, 0), (1, 1)]


def test_the_same_is_found_there_and_another_refused(run: Run) -> None:
    first = left_out(run, ("000", 0))
    assert left_out(run, ("000", 0)) == first
    other = ExclusionRequest("less", {"list": "other"})
    with pytest.raises(ViewError, match="choose another name"):
        exclude(run, open_view(run), other, groups(("000", 1)), lambda _: None)


def test_without_texts_what_is_not_left_out_is_kept(tmp_path: Path) -> None:
    run = hashed_run(tmp_path / "screen", [picture("a"), picture("b"), picture("c")], screens=True)
    view = left_out(run, ("000", 1))
    assert (view.shards[0].counts.kept, view.shards[0].counts.filtered) == (2, 1)
    assert verify_run(run).problems == ()


def test_one_view_on_another_counts_each_sample_once_without_texts(tmp_path: Path) -> None:
    run = hashed_run(tmp_path / "screen", [picture(key) for key in "abcd"], screens=True)
    left_out(run, ("000", 0), ("000", 1))
    more = ExclusionRequest("more", {})
    view = exclude(run, open_view(run, "less"), more, groups(("000", 2)), lambda _: None)
    counts = total_counts(shard.counts for shard in view.shards)
    assert (counts.kept, counts.filtered) == (1, 3)
    assert verify_run(run).problems == ()


def test_what_is_left_out_is_no_longer_counted_by_its_own_reason(
    tmp_path: Path,
) -> None:
    run = hashed_run(tmp_path / "odd", [picture("a", math.nan), picture("b")])
    assert total_counts(shard.counts for shard in open_view(run).shards).not_finite == 1
    view = left_out(run, ("000", 0))
    assert total_counts(shard.counts for shard in view.shards).not_finite == 0
    assert verify_run(run).problems == ()


def test_another_decision_than_the_list_is_found(run: Run) -> None:
    view = left_out(run, ("000", 0))
    assert view.record is not None
    assert view.record.excluded is not None
    changed, buffer = groups(("000", 2)), io.BytesIO()
    pq.write_table(changed, buffer)
    run.store.put(view.record.excluded.groups, buffer.getvalue())
    assert any("sha256" in str(problem) for problem in verify_run(run).problems)
    with pytest.raises(DamagedFile):
        read_groups(run, view.excluded)


def test_its_list_is_no_garbage(run: Run) -> None:
    left_out(run, ("000", 0))
    garbage = find_garbage(run, 0)
    assert (garbage.old, garbage.unknown) == ((), ())
