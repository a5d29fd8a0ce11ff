"""Explain the match of a sample's texts: which words sank it, and where the filter looked.

The picture is read again out of the input shard, and known by its hash; the filter is the run's
own, and known by its digest: another one would explain scores that the run does not have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from models.checkpoints.weights import CheckpointError, resolve
from models.roles.attention_explainer import AttentionExplainer
from pipeline.explain.run_models import run_model
from pipeline.explain.source_images import read_source_images
from pipeline.explain.word_ablation import WordAblation, ablate_words, attention_of
from pipeline.media.decode import DecodeRefusal, decode
from pipeline.media.pictures import LIMITS
from pipeline.media.sheet import ACROSS, CELL, Ink, sheet, small
from shards.run.run import Run

Row = dict[str, Any]

MOST_TEXTS = 12  # on one sheet
_RED: Ink = (178, 24, 24)


@dataclass(frozen=True, slots=True)
class MatchExplanation:
    """A text of a sample, with what its words do to its match."""

    text: Row
    doubted: WordAblation


def open_attender(run: Run, model: str | None = None, device: str = "cpu") -> AttentionExplainer:
    """Load the filter that scored a run; CheckpointError if it is not there, or another one is."""
    recorded = run_model(run, "filter")
    folder = resolve(model or recorded.model, None if model else recorded.revision)
    attender = AttentionExplainer.load(
        folder,
        dtype=run.identity.get("dtype", "auto"),
        device=device,
        max_tokens=recorded.max_tokens,
    )
    if recorded.digest and attender.digest != recorded.digest:
        raise CheckpointError(
            f"{folder} is not the filter of this run: expected digest {recorded.digest[:12]}, "
            f"found {attender.digest[:12]}; give the run's own with --model"
        )
    return attender


def picture_of(run: Run, sample: Row) -> Image.Image | str:
    """Read a sample's picture again, or say why it cannot be shown."""
    if sample["sha256"] is None or sample["status"] != "ok":
        return "it was rejected before any model saw it"
    url = next((one.url for one in run.inputs if one.shard == sample["shard"]), None)
    ((_, data),) = read_source_images(url, {sample["index"]: sample["sha256"]})
    if isinstance(data, str):
        return data
    found = decode(data, LIMITS)
    return str(found.reason) if isinstance(found, DecodeRefusal) else found.image


def explain_texts(
    attender: AttentionExplainer, picture: Image.Image, texts: Sequence[Row]
) -> list[MatchExplanation]:
    """Judge every text of a sample word by word."""
    return [MatchExplanation(text, ablate_words(attender, picture, text["text"])) for text in texts]


def draw(
    attender: AttentionExplainer, picture: Image.Image, explained: Sequence[MatchExplanation]
) -> bytes:
    """Draw a row for each text: the picture, then where the filter looked for the words that count.

    These are the ones that sink the match, in red, the worst first; or, if none does, those that
    raise it most.
    """
    cells: list[tuple[str, Image.Image]] = []
    inks: list[Ink | None] = []
    blank = Image.new("RGB", (CELL, 1), (255, 255, 255))
    for one in explained[:MOST_TEXTS]:
        words, most = one.doubted.words, ACROSS - 1
        places = one.doubted.worst(most) or one.doubted.best(most)
        head = f"{one.text['origin']} {one.doubted.itm:.2f}: {one.text['text']}"
        maps = attention_of(attender, picture, one.text["text"], places)
        row = [(head, small(picture))]
        row += [
            (f"{words[n].text} {words[n].effect:+.2f}", drawn)
            for n, drawn in zip(places, maps, strict=True)
        ]
        cells += row + [("", blank)] * (ACROSS - len(row))
        own = [_RED if words[n].sinks else None for n in places]
        inks += [None, *own, *[None] * (most - len(own))]
    return sheet(cells, inks=inks)
