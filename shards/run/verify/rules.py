"""The rules between the rows of one shard's tables, as sentences about what breaks them.

Written apart from the writer, and by other means, so that `verify` is a second opinion.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from shards.reasons import DecisionReason
from shards.run.commit import Counts, TextCounts
from shards.schema import TextRow

SAMPLE_COLUMNS = ["shard", "index", "key", "status", "reason", "text_reason"]
_PLACE = ["index", "text_no"]


def complaints(
    shard: str,
    samples: pa.Table,
    texts: pa.Table,
    decisions: pa.Table,
    only_screened: bool = False,
) -> Iterator[str]:
    """Yield what is wrong with the rows of one shard, at most one sentence per rule."""
    for name, table in (("samples", samples), ("texts", texts), ("decisions", decisions)):
        others = set(table["shard"].unique().to_pylist()) - {shard}
        if others:
            yield f"{name} holds rows of other shards: {sorted(map(str, others))[:3]}"
    if samples["index"].to_pylist() != list(range(len(samples))):
        yield f"the samples' index is not 0 to {len(samples) - 1} in order"
        return
    yield from _sample_rules(samples)
    if not only_screened:
        yield from _text_rules(samples, texts)
    elif len(texts):
        yield "there are texts, in a run that only screens"
    if texts.select(_PLACE) != decisions.select(_PLACE):
        yield "decisions are not one for each text, in the order of the texts"
    elif any(
        keep != (reason == DecisionReason.KEPT)
        for keep, reason in zip(
            decisions["keep"].to_pylist(), decisions["reason"].to_pylist(), strict=True
        )
    ):
        yield "a decision's keep and reason contradict each other"


def score_complaints(
    scorers: Mapping[str, Sequence[str]], shard: str, rows: pa.Table, texts: pa.Table
) -> Iterator[str]:
    """Yield what is wrong with rows of scores; `scorers` are those that they may be of."""
    if set(rows["shard"].to_pylist()) - {shard}:
        yield "holds rows of other shards"
    if set(rows["scorer"].to_pylist()) - scorers.keys():
        yield "holds rows of another scorer"
    known = {(scorer, name) for scorer, names in scorers.items() for name in names}
    named = set(zip(rows["scorer"].to_pylist(), rows["name"].to_pylist(), strict=True))
    if {each for each in named if each[0] in scorers} - known:
        said = sorted({name for _, name in known})
        yield f"holds scores that are not {', '.join(said)}"
    columns = (rows[name].to_pylist() for name in (*_PLACE, "scorer", "name"))
    places = list(zip(*columns, strict=True))
    if places != sorted(set(places)):
        yield "rows are not in the order of index, text_no, scorer and name, each once"
    there = set(zip(*(texts[name].to_pylist() for name in _PLACE), strict=True))
    if {place[:2] for place in places} - there:
        yield "holds scores of texts that the run does not have"


def recount(
    samples: pa.Table,
    texts: pa.Table,
    decisions: pa.Table,
    screened: frozenset[int] | None = None,
) -> Counts:
    """Count a shard again from its rows.

    In a run without texts `screened` are the samples that are left out: the others are kept.
    """
    keep = decisions["keep"].combine_chunks()
    with_kept = set(decisions.filter(keep)["index"].to_pylist())
    ok = samples.filter(pc.equal(samples["status"], "ok"))
    rejected = samples.filter(pc.equal(samples["status"], "rejected"))
    kept = sum(index in with_kept for index in ok["index"].to_pylist())
    if screened is not None:
        kept = sum(index not in screened for index in ok["index"].to_pylist())
    texts_in, kept_texts = _tally(texts["origin"]), _tally(texts.filter(keep)["origin"])
    not_finite = pc.equal(decisions["reason"], DecisionReason.SCORE_NOT_FINITE.value)
    return Counts(
        samples_in=len(samples),
        kept=kept,
        filtered=len(ok) - kept,
        rejected=len(rejected),
        rejected_by_reason=_tally(rejected["reason"]),
        text_reasons=_tally(ok["text_reason"].drop_null()),
        texts={o: TextCounts(given=n, kept=kept_texts.get(o, 0)) for o, n in texts_in.items()},
        not_finite=pc.sum(not_finite).as_py() or 0,
        refused=decisions["reason"].to_pylist().count(DecisionReason.CAPTION_REFUSED),
    )


def kept_texts(texts: pa.Table, decisions: pa.Table) -> dict[int, list[TextRow]]:
    """Return each sample's kept texts by its index, as KEY.json of the clean tar lists them."""
    columns = ["index", "text", "origin", "itm", "itc"]
    rows = texts.filter(decisions["keep"].combine_chunks()).select(columns).to_pylist()
    found: dict[int, list[TextRow]] = {}
    for row in rows:
        found.setdefault(row.pop("index"), []).append(row)
    return found


def _sample_rules(samples: pa.Table) -> Iterator[str]:
    statuses, reasons = samples["status"].to_pylist(), samples["reason"].to_pylist()
    strange = set(statuses) - {"ok", "rejected"}
    if strange:
        yield f"samples have a status that is neither ok nor rejected: {sorted(strange)[:3]}"
    if any((s == "ok") != (r is None) for s, r in zip(statuses, reasons, strict=True)):
        yield "a sample is rejected without a reason, or ok with one"
    keys = Counter(
        key for s, key in zip(statuses, samples["key"].to_pylist(), strict=True) if s == "ok"
    )
    twice = [key for key, count in keys.items() if count > 1]
    if twice:
        yield f"keys on more than one ok sample: {len(twice)}, the first is {twice[0]!r}"


def _text_rules(samples: pa.Table, texts: pa.Table) -> Iterator[str]:
    numbers = list(zip(texts["index"].to_pylist(), texts["text_no"].to_pylist(), strict=True))
    if numbers != sorted(set(numbers)):
        yield "texts are not in the order of index and text_no, each once"
    ok = {i for i, s in enumerate(samples["status"].to_pylist()) if s == "ok"}
    if not {index for index, _ in numbers} <= ok:
        yield "texts stand on samples that are not ok"
    origins = texts["origin"].to_pylist()
    if any((number == 0) != (o == "web") for (_, number), o in zip(numbers, origins, strict=True)):
        yield "text_no 0 is not the web text's alone"
    without = {i for i, r in enumerate(samples["text_reason"].to_pylist()) if r is not None}
    if {index for index, number in numbers if number == 0} != ok - without:
        yield "web texts do not stand on just the ok samples without a text_reason"


def _tally(column: pa.ChunkedArray) -> dict[str, int]:
    return dict(sorted(Counter(column.to_pylist()).items()))
