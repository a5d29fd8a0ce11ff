"""The report, read back by an HTML parser and compared with slow and obvious counts."""

import base64
import hashlib
import io
import math
import random
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.clean.judge import JudgeConfig, judge
from pipeline.report.page import build_report, report_name
from shards.inputs.listing import list_inputs
from shards.inputs.reader import ShardReader, State, open_shard
from shards.run.commit import Commit, Counts, InputRecord, StateRecord, TextCounts, commit
from shards.run.run import Run
from shards.run.snapshot import SnapshotShard, write_snapshot
from shards.run.view import View, open_view
from shards.schema import TEXTS, arrow_rows
from shards.statistics import run_statistics
from shards.store import Store
from shards.writer import ShardWriter

THRESHOLD = {"web": 0.3, "synthetic": 0.7}
Row = dict[str, Any]


@dataclass
class Node:
    """One element of a page."""

    tag: str
    attributes: dict[str, str | None] = field(default_factory=dict)
    children: "list[Node | str]" = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(c if isinstance(c, str) else c.text for c in self.children)

    def all(self, tag: str = "", **wanted: str) -> "Iterator[Node]":
        for child in self.children:
            if isinstance(child, Node):
                named = tag in ("", child.tag)
                given = {
                    name: child.attributes.get(name.rstrip("_").replace("_", "-"))
                    for name in wanted
                }
                if named and given == wanted:
                    yield child
                yield from child.all(tag, **wanted)

    def one(self, tag: str = "", **wanted: str) -> "Node":
        (found,) = self.all(tag, **wanted)
        return found


class Tree(HTMLParser):
    """Builds the tree of a page, with no mercy for what is not closed."""

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("")
        self._open = [self.root]
        self.feed(page.decode())
        self.close()
        assert self._open == [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, dict(attrs))
        self._open[-1].children.append(node)
        if tag not in ("meta", "img"):
            self._open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def page_of(run: Run, view: View | None = None, **options: Any) -> Node:
    return Tree(build(run, view, **options)).root


def build(run: Run, view: View | None = None, **options: Any) -> bytes:
    return build_report(run, view or open_view(run), lambda _: None, **options)


def words(node: Node) -> str:
    parts = [child if isinstance(child, str) else words(child) for child in node.children]
    return " ".join(" ".join(parts).split())


def cards(page: Node, group: str) -> list[Node]:
    return [card for ul in page.all("ul", aria_labelledby_=group) for card in ul.all(class_="card")]


@pytest.fixture
def picture(noise: Any, encode: Any) -> Callable[[int], bytes]:
    return lambda seed: encode(noise(80, 60, seed=seed), "PNG")


@pytest.fixture
def make_run(tmp_path: Path, tar_of: Any, picture: Any) -> Callable[..., Run]:
    """Make a run over shards of samples; each is a row with `texts`, and an `image`."""

    def make(*shards: list[Row], done: int | None = None) -> Run:
        (tmp_path / "web").mkdir()
        for number, samples in enumerate(shards):
            members = [
                (f"s{n:03}.png", row.pop("image", None) or picture(n))
                for n, row in enumerate(samples)
            ]
            (tmp_path / "web" / f"{number:03}.tar").write_bytes(tar_of(members))
        identity = {"judge": {"threshold": THRESHOLD}, "dtype": "fp32", "seed": 7}
        listed = list_inputs([str(tmp_path / "web")])
        run = Run.create(Store(str(tmp_path / "run")), "seed: 7\n", identity, {}, listed)
        for listed_shard, samples in list(zip(run.inputs, shards, strict=True))[:done]:
            write_shard(run, listed_shard.shard, listed_shard.url, samples)
        if done is None:
            write_snapshot(run)
        return run

    return make


def write_shard(run: Run, shard: str, url: str, samples: list[Row]) -> None:
    attempt = hashlib.sha256(shard.encode()).hexdigest()[:16]
    with open_shard(url) as file, ShardWriter(run.store, shard, attempt) as writer:
        for raw, row in zip(ShardReader(file), samples, strict=True):
            facts = {"index": raw.index, "key": raw.key, "status": "ok"}
            facts |= {"sha256": hashlib.sha256(raw.image or b"").hexdigest()}
            facts |= {name: row[name] for name in row if name != "texts"}
            place = {"shard": shard, "index": raw.index}
            texts = [place | {"text_no": n} | text for n, text in enumerate(row.get("texts", []))]
            decisions = judge(arrow_rows(texts, TEXTS), JudgeConfig(threshold=THRESHOLD))
            writer.add(facts, texts, decisions.to_pylist())
        files = tuple(writer.finish())
        done = Commit(
            shard=shard,
            fingerprint=run.fingerprint,
            attempt=attempt,
            input=InputRecord(url=url, size_bytes=1, sha256=""),
            state=StateRecord(state=State.COMPLETE),
            files=files,
            counts=writer.counts,
            environment={},
            started="",
            ended="",
        )
    assert commit(run, done)


def sample(*itms: float | None, **facts: Any) -> Row:
    """Make a sample with one web text, and synthetic ones, of these scores."""
    origins = ["web", *["synthetic"] * (len(itms) - 1)]
    texts = [
        {"origin": origin, "text": f"text {n}", "itm": itm}
        for n, (origin, itm) in enumerate(zip(origins, itms, strict=False))
    ]
    return {"texts": texts} | facts


def many(shards: int, samples: int, seed: int = 1) -> list[list[Row]]:
    draw = random.Random(seed)
    reasons = ["image_blank", "image_aspect", "skipped"]
    found = []
    for _ in range(shards):
        rows = [sample(*(draw.random() for _ in range(draw.randint(1, 3)))) for _ in range(samples)]
        rows[0] = sample(math.nan, None)
        rows[1] = {"status": "rejected", "reason": draw.choice(reasons), "notes": ["bom_stripped"]}
        found.append(rows)
    return found


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


def images(page: Node) -> list[Image.Image]:
    found = []
    for image in page.all("img"):
        kind, _, data = (image.attributes["src"] or "").partition(",")
        assert kind == "data:image/webp;base64"
        found.append(Image.open(io.BytesIO(base64.b64decode(data))))
        assert image.attributes["alt"]
        size = (image.attributes["width"], image.attributes["height"])
        assert size == tuple(map(str, found[-1].size))
    return found


def test_pictures_that_are_gone_changed_or_dangerous_leave_words(
    make_run: Any, picture: Any, tar_of: Any, tmp_path: Path
) -> None:
    bad = [
        {"status": "rejected", "reason": reason}
        for reason in ("decoder_crash", "decode_timeout", "image_too_large", "image_blank")
    ]
    run = make_run([sample(0.9)], [sample(0.9), sample(0.9)], [sample(0.9)], bad, [sample(0.9)])
    (tmp_path / "web" / "000.tar").unlink()
    changed = tar_of([("s000.png", picture(5)), ("s001.png", picture(1))])
    (tmp_path / "web" / "001.tar").write_bytes(changed)
    (tmp_path / "web" / "002.tar").write_bytes(b"no tar")
    page = page_of(run)
    assert [image.size for image in images(page)] == [(80, 60)] * 3
    frames = {}
    for group in ("kept", "rejected"):
        for card in cards(page, group):
            frame = next(card.all("div"))
            frames[words(card.one("code"))] = words(frame) or "picture"
            assert len(list(frame.all("img"))) == (words(frame) == "")
    assert frames == {
        "000/s000": "the input shard is gone",
        "001/s000": "the input has changed since: another picture is there now",
        "001/s001": "picture",
        "002/s000": "not in the input any more",
        "003/s000": "not decoded, to be safe",
        "003/s001": "not decoded, to be safe",
        "003/s002": "not decoded, to be safe",
        "003/s003": "picture",
        "004/s000": "picture",
    }


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
    state = StateRecord(state=State.TRUNCATED if number % 1000 == 999 else State.COMPLETE, offset=5)
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
