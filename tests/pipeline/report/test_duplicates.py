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


def test_another_runs_picture_is_not_taken_from_this_one(make_run: Any) -> None:
    run = make_run([sample(0.9, 0.9) for _ in range(3)])
    rows = groups(
        (0, "/runs/eval", 0, None, None, None),
        (0, None, 1, "exact", 0, DUPLICATE),
        (1, None, 0, None, None, None),
        (1, None, 2, "near", 1, DUPLICATE),
    )
    (kept, _), _ = _shown(run, rows.to_pylist())
    assert "of another run" in words(kept)
    assert not list(kept.all("img"))


def test_a_keeper_that_is_left_out_itself_is_not_called_kept(make_run: Any) -> None:
    run = make_run([sample(0.9, 0.9) for _ in range(2)])
    withdrawn = (None, None, 0, "listed", None, "skipped")
    pair = (0, None, 0, None, None, None), (0, None, 1, "exact", 0, DUPLICATE)
    (keeper, _) = _shown(run, groups(*pair, withdrawn).to_pylist())[0]
    assert "left out itself" in words(keeper)


def _shown(run: Any, rows: list[dict[str, Any]]) -> list[list[Any]]:
    """Return the cards of each group on the page of a view that leaves these out."""
    facts = _samples(run)
    rows = [row | {"sha256": facts[row["index"]]["sha256"]} for row in rows]
    table = pa.Table.from_pylist(rows, schema=GROUPS)
    view = exclude(run, open_view(run), ExclusionRequest("v", {}), table, lambda _: None)
    section = page_of(run, view).one(id="same")
    return [list(cards.all(class_="card")) for cards in section.all(class_="cards")]


def _samples(run: Any) -> list[dict[str, Any]]:
    from shards.run.data import read_data

    (shard,) = open_view(run).shards
    file = next(file for file in shard.files if file.table == "samples")
    return read_data(run, file, ["sha256"]).to_pylist()
