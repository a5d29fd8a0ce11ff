"""A run whose keys and texts are hostile, made by the real stages and made-up scores."""

import io
import tarfile
from pathlib import Path

from PIL import Image

from pipeline.clean.export import Provenance, WriteConfig, clean_sample
from pipeline.clean.judge import JudgeConfig, judge
from pipeline.clean.screen import ScreenConfig, screen
from shards.inputs.listing import list_inputs
from shards.inputs.reader import ShardReader, ShardState, open_shard
from shards.inputs.shard import InputShard
from shards.run.attempt import start_attempt
from shards.run.commit import Commit, InputRecord, commit
from shards.run.run import Run
from shards.run.snapshot import write_snapshot
from shards.schema import TEXTS, TextRow, arrow_rows
from shards.store import Store
from shards.writer import ShardWriter

HOSTILE = [
    "\x1b[31mred\x1b]0;title\x07",
    "[red]markup[/] [/] [link=file:///etc/passwd]x[/link] :boom:",
    "\u202ereversed\u2066 \u200eleft",
    "bell\x07 back\x08 return\r over \x9b2J",
    "tab\tand\nnew lines\u2028here",
    "wide 漢字 and 👩‍👩‍👧 and e\u0301",
]
KEYS = ["plain", "with/slash", "[red]key[/]", "esc\x1b[2Jape", "dotted.name", "\u202erev"]


def picture(number: int) -> bytes:
    """A small picture of its own colour."""
    buffer = io.BytesIO()
    image = Image.new("RGB", (40, 40), (number * 30, 9, 9))
    image.putpixel((0, 0), (255, 255, 255))
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write_inputs(folder: Path) -> list[InputShard]:
    """Two shards of a picture for each key, one of them empty."""
    folder.mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"{shard:05}.tar", "w") as tar:
            for number, key in enumerate(KEYS):
                data = b"" if number == 4 else picture(number)
                info = tarfile.TarInfo(f"{key}.png")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return list_inputs([str(folder)])


def text_row(shard: str, index: int, number: int) -> TextRow:
    return {
        "shard": shard,
        "index": index,
        "text_no": number,
        "origin": "synthetic",
        "text": HOSTILE[(index + number) % 6],
        "itm": (index + number) / 10,
        "itm_logit": 1.0,
        "itc": 0.5,
        "logprob": -1.0,
    }


def work(run: Run, item: InputShard) -> Commit:
    """Clean a shard with made-up texts and scores, in place of models."""
    attempt, config = start_attempt(run, item.shard), JudgeConfig()
    source = Provenance(item.shard, run.fingerprint, 0)
    with open_shard(item.url) as file, ShardWriter(run.store, item.shard, attempt) as writer:
        reader = ShardReader(file)
        for raw in reader:
            screened = screen(raw, ScreenConfig())
            texts = [text_row(item.shard, raw.index, n) for n in range(1, 4) if screened.ok]
            decisions = judge(arrow_rows(texts, TEXTS), config).to_pylist()
            kept = [t for t, d in zip(texts, decisions, strict=True) if d["keep"]]
            facts = screened.facts | {"url": HOSTILE[0]}
            clean = None
            if kept:
                clean = clean_sample(facts, kept, raw.image or b"", WriteConfig(), source)
            writer.add(facts, texts, decisions, clean)
        files = writer.finish()
    return Commit(
        shard=item.shard,
        fingerprint=run.fingerprint,
        attempt=attempt,
        input=InputRecord(url=item.url, size_bytes=reader.bytes_read, sha256=reader.sha256),
        state=ShardState(state=reader.state.state),
        files=tuple(files),
        counts=writer.counts,
        environment={},
        started="",
        ended="",
    )


def make_run(folder: Path, shards: int = 2) -> Run:
    """A run over both shards, of which so many are done."""
    inputs = write_inputs(folder.parent / f"{folder.name}-web")
    config = {"threshold": {"web": 0.5, "synthetic": 0.5}}
    identity = {
        "seed": 0,
        "judge": config,
        "write": WriteConfig().model_dump(),
        "screen": ScreenConfig().model_dump(),
    }
    run = Run.create(Store(str(folder)), "", identity, {}, inputs)
    for item in inputs[:shards]:
        assert commit(run, work(run, item))
    if shards == len(inputs):
        write_snapshot(run)
    return run
