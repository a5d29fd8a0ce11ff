"""The index of a clean set: a row for each picture, without the picture.

It says where the picture is from, by which hashes it is known, and what came of each of its texts.
`capfilt download` fetches the pictures of such a list again, and compares the hashes.
"""

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from pipeline.clean.export import choose_text
from pipeline.publish.files import PLAIN
from pipeline.publish.kept import ScoredTextRow, rows_of, texts_of
from shards.reasons import SampleReason
from shards.run.run import Run
from shards.run.snapshot import SnapshotShard
from shards.run.view import ITM
from shards.schema import SampleRow

VERSION = 2  # of its columns; 1 had a row for each text
# What somebody wants gone is listed nowhere, not even among what is dropped.
_NEVER_LISTED = {SampleReason.IMAGE_BLOCKED, SampleReason.SKIPPED}
_PLAIN: Final = ("key", "url", "sha256", "width", "height")
_FACTS = ["index", "status", "reason", "phash", *_PLAIN]
_OF_TEXT = ["text", "origin", "itm", "itc", "keep", "reason"]


def index_schema(by: str) -> pa.Schema:
    """Return the columns of an index; its texts have a `score` where `itm` is not what decides."""
    of_text = [
        ("text", pa.string()),
        ("origin", pa.string()),
        ("itm", pa.float32()),
        ("itc", pa.float32()),
        ("keep", pa.bool_()),
        ("reason", pa.string()),
    ]
    scored = of_text if by == ITM else [*of_text, ("score", pa.float32())]
    return pa.schema(
        [
            *PLAIN,
            ("dhash", pa.string()),
            ("keep", pa.bool_()),
            ("reason", pa.string()),  # of a picture that was rejected
            ("text", pa.string()),
            ("texts", pa.list_(pa.struct(scored))),
        ]
    )


def index_rows(run: Run, shard: SnapshotShard, by: str, text_policy: str) -> list[dict[str, Any]]:
    """Return the rows of a shard's samples, kept or not; `text_policy` chooses the one text.

    Samples that somebody has listed, to be left out or never shown, have none.
    """
    texts = dict(texts_of(run, shard, by))
    rows = []
    for facts in rows_of(run, shard, "samples", _FACTS):
        of_sample = texts.get(facts["index"], [])
        if _NEVER_LISTED.isdisjoint({facts["reason"], *(text["reason"] for text in of_sample)}):
            rows.append(_row(run, shard.shard, facts, of_sample, text_policy))
    return rows


def _row(
    run: Run, shard: str, facts: SampleRow, texts: Sequence[ScoredTextRow], text_policy: str
) -> dict[str, Any]:
    kept = [text for text in texts if text["keep"]]
    seed = f"{run.identity.get('seed', 0)}/{shard}/{facts['key']}"
    phash = facts["phash"]
    return {
        **{name: facts[name] for name in _PLAIN},
        "shard": shard,
        "dhash": None if phash is None else phash.hex(),
        "keep": bool(kept),
        "reason": facts["reason"],
        "text": choose_text(kept, text_policy, seed)["text"] if kept else None,
        "texts": [{name: text.get(name) for name in (*_OF_TEXT, "score")} for text in texts],
    }
