"""Explain the match of a sample's texts: which words sank it, and where the filter looked.

The picture is read again out of the input shard, and known by its hash; the filter is the run's
own, and known by its digest: another one would explain scores that the run does not have.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from models.checkpoints.locate import CheckpointError, resolve
from models.roles.attention_explainer import AttentionExplainer
from pipeline.explain.run_models import run_model
from pipeline.explain.source_images import read_source_images
from pipeline.explain.word_ablation import WordAblation, ablate_words, draw_attention
from pipeline.media.decode import DecodeRefusal, decode
from pipeline.media.pictures import LIMITS
from pipeline.media.sheet import ACROSS, CELL, Ink, sheet, small
from shards.inputs.text import text_source
from shards.run.run import Run
from shards.schema import SampleRow, TextRow

MOST_TEXTS = 12  # on one sheet
_RED: Ink = (178, 24, 24)


@dataclass(frozen=True, slots=True)
class MatchExplanation:
    """A text of a sample, with what its words do to its match."""

    text: TextRow
    ablation: WordAblation


def open_explainer(run: Run, model: str | None = None, device: str = "cpu") -> AttentionExplainer:
    """Load the filter that scored a run; CheckpointError if it is not there, or another one is."""
    recorded = run_model(run, "filter")
    if recorded.apart and model is None:
        raise CheckpointError(
            f"{run.store.url()} was scored by {recorded.name}, and maps are drawn of BLIP's "
            "filters alone; give one with --model"
        )
    folder = resolve(model or recorded.model, None if model else recorded.revision)
    explainer = AttentionExplainer.load(
        folder,
        dtype=run.identity.get("dtype", "auto"),
        device=device,
        max_tokens=recorded.max_tokens,
    )
    if recorded.digest and explainer.digest != recorded.digest:
        raise CheckpointError(
            f"{folder} is not the filter of this run: expected digest {recorded.digest[:12]}, "
            f"found {explainer.digest[:12]}; give the run's own with --model"
        )
    return explainer


def read_sample_image(run: Run, sample: SampleRow) -> Image.Image | str:
    """Read a sample's picture again, or return why it cannot be shown."""
    if sample["sha256"] is None or sample["status"] != "ok":
        return "it was rejected before any model saw it"
    shard = next((shard for shard in run.inputs if shard.shard == sample["shard"]), None)
    ((_, data),) = read_source_images(
        shard, {sample["index"]: sample["sha256"]}, text_source(run.identity)
    )
    if isinstance(data, str):
        return data
    decoded = decode(data, LIMITS)
    return str(decoded.reason) if isinstance(decoded, DecodeRefusal) else decoded.image


def explain_texts(
    explainer: AttentionExplainer, picture: Image.Image, texts: Sequence[TextRow]
) -> list[MatchExplanation]:
    """Judge every text of a sample word by word."""
    return [
        MatchExplanation(text, ablate_words(explainer, picture, text["text"])) for text in texts
    ]


def draw(
    explainer: AttentionExplainer, picture: Image.Image, explained: Sequence[MatchExplanation]
) -> bytes:
    """Draw a row for each text: the picture, then where the filter looked for the words that count.

    These are the ones that sink the match, in red, the worst first; or, if none does, those that
    raise it most.
    """
    cells: list[tuple[str, Image.Image]] = []
    inks: list[Ink | None] = []
    most = ACROSS - 1  # words; the picture comes first
    blank = Image.new("RGB", (CELL, 1), (255, 255, 255))
    for explanation in explained[:MOST_TEXTS]:
        text, ablation = explanation.text, explanation.ablation
        indices = ablation.worst(most) or ablation.best(most)
        words = [ablation.words[index] for index in indices]
        maps = draw_attention(explainer, picture, text["text"], indices)
        row = [(f"{text['origin']} {ablation.itm:.2f}: {text['text']}", small(picture))]
        row += [(f"{word.text} {word.effect:+.2f}", m) for word, m in zip(words, maps, strict=True)]
        cells += row + [("", blank)] * (ACROSS - len(row))
        word_inks = [_RED if word.sinks else None for word in words]
        inks += [None, *word_inks, *[None] * (most - len(words))]
    return sheet(cells, inks=inks)
