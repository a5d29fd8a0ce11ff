"""Caption: every picture gets new texts, written by one captioner or by several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.captioners.captioner import Refusal

if TYPE_CHECKING:  # a recipe is checked without waiting for torch
    from models.captioners.captioner import Captioner, PixelCaptioner, Written
    from shards.schema import SampleRow, TextRow

REFUSED = "caption_refused"  # a note of the sample; its detail says who refused, and why


@dataclass(frozen=True, slots=True)
class NamedCaptioner:
    """A captioner as a run has it: the origin of its texts, and how many it writes."""

    name: str
    count: int
    captioner: Captioner | PixelCaptioner


def caption(
    named: NamedCaptioner,
    pictures: Any,  # noqa: ANN401 - as the captioner takes them
    keys: Sequence[str],
    first_no: int = 1,
) -> list[list[TextRow] | Refusal]:
    """Caption a batch; the result is rows of the texts table, numbered from `first_no` on.

    `pictures` are as the captioner takes them: prepared ones, or one tensor.
    """
    return [
        written
        if isinstance(written, Refusal)
        else [_row(named, number, text) for number, text in enumerate(written, first_no)]
        for written in named.captioner.caption(pictures, keys, named.count)
    ]


def refused(
    named: NamedCaptioner, first_no: int, refusal: Refusal, facts: SampleRow
) -> list[TextRow]:
    """Stand in for what a captioner would not write, and note why in the sample's own row.

    The rows have no author and no words, so that each picture has as many texts of each origin.
    """
    notes, said = facts["notes"] or [], facts["detail"]
    facts["notes"] = notes if REFUSED in notes else [*notes, REFUSED]
    why = f"{named.name}: {refusal.detail}"
    if why not in (said or ""):  # else it was asked again, in a smaller batch
        facts["detail"] = f"{said}; {why}" if said else why
    return [
        {"text_no": number, "origin": named.name, "text": ""}
        for number in range(first_no, first_no + named.count)
    ]


def imported(candidates: Iterable[tuple[str, str]], first_no: int) -> list[TextRow]:
    """Make rows of candidates from outside, each an origin and a text."""
    return [
        {"text_no": number, "origin": origin, "text": text}
        for number, (origin, text) in enumerate(candidates, first_no)
    ]


def _row(named: NamedCaptioner, text_no: int, written: Written) -> TextRow:
    return {
        "text_no": text_no,
        "origin": named.name,
        "author": named.captioner.digest,
        "text": written.text,
        "logprob": written.logprob,
        "truncated": written.truncated,
    }
