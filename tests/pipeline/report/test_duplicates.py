"""Groups on the page: the largest first, the keeper before the rest, the farthest of these."""

from typing import Any

import pyarrow as pa

from pipeline.report.duplicates import MEMBERS, choose_groups
from pipeline.views.exclude import ExclusionRequest, exclude
from shards.run.view import open_view
from shards.schema import GROUPS
from tests.support.report_page import page_of, sample, words


def groups(*rows: tuple[Any, ...]) -> pa.Table:
    names = ["group", "run", "index", "kind", "distance", "reason"]
    places = [dict(zip(names, row, strict=True)) for row in rows]
    full = [{"shard": "000", "key": f"s{place['index']:03}", **place} for place in places]
    return pa.Table.from_pylist(full, schema=GROUPS)


DUPLICATE = "duplicate_image"
THREE = groups(
    (0, None, 0, None, None, None),
    (0, None, 1, "near", 4, DUPLICATE),
    (1, "/runs/eval", 9, None, None, None),
    (1, None, 2, "exact", 0, DUPLICATE),
    (1, None, 3, "near", 20, DUPLICATE),
    (None, None, 4, "listed", None, "skipped"),
)


def test_the_largest_comes_first_and_its_farthest_member() -> None:
    chosen = choose_groups(THREE)
    assert [[row["index"] for row in rows] for rows in chosen] == [[9, 3, 2], [0, 1]]


def test_the_page_shows_them_and_says_that_nothing_is_deleted(make_run: Any) -> None:
    run = make_run([sample(0.9, 0.9) for _ in range(6)])
    request = ExclusionRequest("unique", {})
    picked = THREE.to_pylist()
    facts = {n: row for n, row in enumerate(_samples(run))}
    for row in picked:
        row["sha256"] = facts[row["index"]]["sha256"] if row["run"] is None else None
    table = pa.Table.from_pylist(picked, schema=GROUPS)
    view = exclude(run, open_view(run), request, table, lambda _: None)
    page = page_of(run, view)
    section = page.one(id="same")
    assert "4 samples whose texts other rules may have kept; nothing is deleted" in words(section)
    shown = list(section.all(class_="card"))
    assert len(shown) == 5 <= 2 * (MEMBERS + 1)
    assert "stands in another run" in words(shown[0])
    assert "near: 20 of 256 bits differ" in words(shown[1])
    assert len(list(section.all("img"))) == 4
    assert not list(page_of(run).all(id="same"))


def _samples(run: Any) -> list[dict[str, Any]]:
    from shards.run.data import read_data

    (shard,) = open_view(run).shards
    file = next(file for file in shard.files if file.table == "samples")
    return read_data(run, file, ["sha256"]).to_pylist()
