"""The report, read back by an HTML parser and compared with slow and obvious counts."""

import math
import re
from typing import Any

from pipeline.report.page import report_name
from shards.inputs.reader import ShardState, State
from shards.run.commit import Counts, TextCounts
from shards.run.snapshot import SnapshotShard
from shards.run.view import View, open_view
from shards.statistics import run_statistics
from tests.support.report_page import (
    THRESHOLD,
    Node,
    build,
    cards,
    many,
    page_of,
    sample,
    words,
)


def test_the_numbers_are_those_of_the_statistics(make_run: Any) -> None:
    run = make_run(*many(3, 40))
    page, numbers = page_of(run), run_statistics(run)
    assert numbers["samples_in"] == 120
    for name in ("samples_in", "kept", "filtered", "rejected"):
        assert page.one(id=f"n-{name}").attributes["value"] == str(numbers[name])
    law = "{samples_in} in = {kept} kept + {filtered} filtered + {rejected} rejected"
    assert law.format(**numbers) in words(page.one(id="law"))
    assert f"{numbers['kept']} kept ({numbers['kept'] / 1.2:.1f} %)" in words(
        page.one(id="summary")
    )
    for row in list(page.one(id="origins").all("tr"))[1:]:
        name, given, kept, _, _, threshold = [words(c) for c in row.children if isinstance(c, Node)]
        assert {"in": int(given), "kept": int(kept)} == numbers["texts"][name]
        assert float(threshold) == THRESHOLD[name]
    rows = [[words(cell) for cell in row.all("td")] for row in page.one(id="histograms").all("tr")]
    for place, name in ((1, "web"), (2, "synthetic")):
        assert [int(row[place]) for row in rows[1:]] == numbers["histograms"][name]["counts"]
    reasons = words(page.one(id="reasons"))
    for reason, number in numbers["rejected_by_reason"].items():
        assert re.search(rf"{reason} [a-z- ]+ {number} ", reasons)
    assert re.search(r"bom_stripped [a-z ]+ 3 2\.5 %", reasons)
    assert re.search(r"score_not_finite [a-z ]+ 6 ", reasons)


def test_rows_of_torn_samples_are_told_with_the_mend(make_run: Any) -> None:
    torn: list[dict[str, Any]] = [
        {"texts": [], "status": "rejected", "reason": reason}
        for reason in ("image_missing", "not_adjacent", "not_adjacent")
    ]
    page = page_of(make_run(torn))
    assert words(page.one(id="apart")).startswith("3 rows (image_missing, text_missing, not_")
    assert "tar --sort=name" in words(page.one(id="apart"))


def test_where_none_are_torn_nothing_is_said_of_it(make_run: Any) -> None:
    page = page_of(make_run([{"texts": [], "status": "rejected", "reason": "image_blank"}]))
    assert "image_blank" in words(page.one(id="reasons"))
    assert not list(page.all(id="apart"))


HOSTILE = {
    "<script>document.title='owned'</script>": "<script>document.title='owned'</script>",
    '"><img src=x onerror=alert(1)>': '"><img src=x onerror=alert(1)>',
    "</style><style>*{display:none}": "</style><style>*{display:none}",
    "</bdi></li></ul></main>": "</bdi></li></ul></main>",
    "{{ 7*7 }}{% raw %}&lt;b&gt;&amp;": "{{ 7*7 }}{% raw %}&lt;b&gt;&amp;",
    "a\0b\x1b[31mred\x07\x7f\x9b": "a␀b␛[31mred␇␡\\u009b",
    "abc\u202edef\u2066\u200b\ufeff\u2028\U000e0041": (
        "abc\\u202edef\\u2066\\u200b\\ufeff\\u2028\\U000e0041"
    ),
    "👩\u200d👧 नम\u200cस्ते שלום": "👩\u200d👧 नम\u200cस्ते שלום",
    "<" * 10_000: "<" * 300 + "…",
}


def test_hostile_words_stay_words(make_run: Any) -> None:
    rows = []
    for text in HOSTILE:
        texts = [{"origin": "web", "text": text, "itm": 0.9}]
        rows.append({"key": text[:90], "url": text, "meta": text, "texts": texts})
    detail = next(iter(HOSTILE))
    rejected = {"status": "rejected", "reason": detail, "detail": detail, "web_text": detail}
    run = make_run([*rows, rejected | {"key": None, "notes": [detail]}])
    page = page_of(run)
    shown = [node.text for card in cards(page, "kept") for node in card.all(class_="text")]
    assert sorted(shown) == sorted(HOSTILE.values())
    urls = [node.text for card in cards(page, "kept") for node in card.all("bdi", dir="ltr")]
    assert sorted(url[:150] for url in urls) == sorted(text[:150] for text in HOSTILE.values())
    assert words(cards(page, "rejected")[0]).count("document.title=") >= 4
    for node in page.all():
        assert node.tag not in ("script", "iframe", "object", "link", "form", "base")
        assert not [name for name in node.attributes if name.startswith("on")]
        assert (node.attributes.get("href") or "#").startswith("#")
        assert (node.attributes.get("src") or "data:image/webp;").startswith("data:image/webp;")
    assert len(list(page.all("style"))) == 1
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page.text)


def test_the_same_snapshot_gives_the_same_bytes(make_run: Any) -> None:
    run = make_run(*many(2, 20))
    assert build(run) == build(run)


def test_unfinished_and_empty_runs_have_a_page(make_run: Any) -> None:
    run = make_run(*many(3, 5), done=1)
    assert "1 of 3 shards are done" in page_of(run).text
    empty = View(None, None, THRESHOLD, ())
    page = page_of(run, empty)
    assert "No sample came in yet." in page.text
    assert "0 of 3 shards are done" in page.text
    assert "There is no sample to show." in page.text


def test_scores_that_are_none_have_a_page(make_run: Any) -> None:
    run = make_run([sample(math.nan), sample(None), sample(math.inf, -math.inf), sample(0.1)])
    page = page_of(run)
    assert words(next(cards(page, "filtered")[0].all("strong"))) == "0.1000"
    assert "not finite" in page.text
    assert not cards(page, "kept")
    unknown = View(None, None, {}, open_view(run).shards)
    assert "No text has a score" not in page_of(run, unknown).text


def test_a_page_stays_small_whatever_the_pictures(make_run: Any, noise: Any, encode: Any) -> None:
    image = encode(noise(224, 224), "JPEG")
    shard = [sample((n % 100) / 100, image=image) for n in range(120)]
    assert 1_000_000 < len(build(make_run(shard))) < 3_000_000


def listed(number: int, **counts: Any) -> SnapshotShard:
    state = ShardState(state=State.TRUNCATED if number % 1000 == 999 else State.COMPLETE, offset=5)
    return SnapshotShard(f"{number:05}", "a", state, Counts(**counts), ())


def test_of_ten_thousand_shards_the_noteworthy_are_shown(make_run: Any) -> None:
    texts = {"web": TextCounts(given=100, kept=50)}
    shards = tuple(
        listed(n, samples_in=100, kept=n % 100, filtered=100 - n % 100, texts=texts)
        for n in range(10_000)
    )
    page = page_of(make_run([sample(0.5)], done=0), View("strict", None, THRESHOLD, shards))
    rows = [row for row in page.one(id="shards").all("tr")][1:]
    names = [words(next(row.all(class_="code"))) for row in rows]
    assert names[:10] == [f"{n:05}" for n in range(999, 10_000, 1000)]
    assert names[10:] == [f"{n:05}" for n in [*range(0, 10_000, 100), *range(1, 9_000, 100)]]
    assert "The table shows 200 of them" in words(page.one(id="shards"))
    assert "come from 32 of 10,000 shards" in words(page.one(id="gallery"))


def test_each_view_has_a_page_of_its_own() -> None:
    names = [report_name(View(name, None, {}, ())) for name in (None, "strict", "index")]
    assert names == ["report/index.html", "report/strict/index.html", "report/index/index.html"]
