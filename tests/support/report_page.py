"""Reports read back by an HTML parser, and runs to report on that no model has seen."""

import hashlib
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from pipeline.clean.judge import JudgeConfig, judge
from pipeline.report.page import build_report
from shards.inputs.reader import ShardReader, ShardState, State, open_shard
from shards.run.commit import Commit, InputRecord, commit
from shards.run.run import Run
from shards.run.view import View, open_view
from shards.schema import TEXTS, arrow_rows
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


def write_shard(run: Run, shard: str, url: str, samples: list[Row]) -> None:
    attempt = hashlib.sha256(shard.encode()).hexdigest()[:16]
    with open_shard(url) as file, ShardWriter(run.store, shard, attempt) as writer:
        for raw, row in zip(ShardReader(file), samples, strict=True):
            facts: Any = {"index": raw.index, "key": raw.key, "status": "ok"}
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
            state=ShardState(state=State.COMPLETE),
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
