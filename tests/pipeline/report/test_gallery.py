"""The choice of a gallery: the shards it reads, and the samples that a slow loop would choose."""

import math
import struct
from itertools import pairwise
from typing import Any

from pipeline.report.gallery import MOST_SHARDS, spread
from shards.inputs.reader import ShardState, State
from shards.run.commit import Counts
from shards.run.snapshot import SnapshotShard
from tests.support.report_page import THRESHOLD, Row, cards, many, page_of, words


def shard(number: int, **counts: Any) -> SnapshotShard:
    state = ShardState(state=State.COMPLETE)
    return SnapshotShard(f"{number:05}", "a", state, Counts(**counts), ())


def numbers(shards: list[SnapshotShard]) -> list[int]:
    return [int(chosen.shard) for chosen in spread(shards)]


def test_few_shards_show_every_outcome_and_reason_and_the_whole_run() -> None:
    shards = [shard(n, samples_in=2, kept=2) for n in range(5000)]
    rare = {"skipped": 3000, "image_blank": 3001, "image_aspect": 4999}
    for reason, n in rare.items():
        shards[n] = shard(n, samples_in=1, rejected=1, rejected_by_reason={reason: 1})
    shards[4001] = shard(4001, samples_in=1, filtered=1)
    chosen = numbers(shards)
    assert len(chosen) == MOST_SHARDS
    assert chosen == sorted(set(chosen))
    assert {0, 4001, *rare.values()} <= set(chosen)
    assert max(after - before for before, after in pairwise(chosen)) <= 5000 / (MOST_SHARDS - 6)


def test_reasons_take_no_more_than_half() -> None:
    shards = [
        shard(n, samples_in=1, rejected=1, rejected_by_reason={f"reason {n}": 1})
        for n in range(1000)
    ]
    chosen = numbers(shards)
    assert len(chosen) == MOST_SHARDS
    assert chosen[: MOST_SHARDS // 2 + 1] == list(range(MOST_SHARDS // 2 + 1))
    assert chosen[-1] > 900


def test_a_small_run_gives_all_shards_that_hold_anything() -> None:
    shards = [shard(n, samples_in=n % 2, filtered=n % 2) for n in range(2 * MOST_SHARDS)]
    assert numbers(shards) == list(range(1, 2 * MOST_SHARDS, 2))


def margin_of(row: Row) -> tuple[str, float]:
    """Say what becomes of a sample, and how far it is from changing sides, by the rules' words."""
    margins = []
    for text in row["texts"]:
        if text["itm"] is not None and math.isfinite(text["itm"]):
            itm, limit = (
                struct.unpack("f", struct.pack("f", value))[0]
                for value in (text["itm"], THRESHOLD[text["origin"]])
            )
            margins.append(itm - limit)
    kept = [margin for margin in margins if margin >= 0]
    if kept:
        return "kept", min(kept)
    return "filtered", -max(margins, default=-math.inf)


def test_the_gallery_is_what_a_slow_loop_finds(make_run: Any) -> None:
    shards = many(4, 50)
    page = page_of(make_run(*shards), gallery_count=18)
    found: dict[str, list[tuple[float, str]]] = {"kept": [], "filtered": []}
    for number, rows in enumerate(shards):
        for index, row in enumerate(rows):
            if row.get("status") != "rejected":
                outcome, margin = margin_of(row)
                found[outcome].append((margin, f"{number:03}/s{index:03}"))
    for outcome, ranked in found.items():
        names = [name for _, name in sorted(ranked)]
        shown = [words(card.one("code")) for card in cards(page, outcome)]
        assert shown == names[:15]
        clearest = sorted((r for r in ranked if r[0] < math.inf), key=lambda r: (-r[0], r[1]))[:3]
        clearly = [words(card.one("code")) for card in cards(page, f"clearly-{outcome}")]
        assert clearly == [name for _, name in clearest]
    assert len(cards(page, "rejected")) == 4
