"""Why texts of the gallery were dropped: the words that sank them, and a map of the worst one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from models.checkpoints.locate import SHIPPED, CheckpointError
from models.roles.attention_explainer import AttentionExplainer
from pipeline.explain.match import open_explainer, read_sample_image
from pipeline.explain.run_models import run_model
from pipeline.explain.word_ablation import AblatedWord, ablate_words, draw_attention
from pipeline.report.gallery import Gallery, GalleryPick
from pipeline.report.thumbnail import SampleId, Thumbnail, encode_thumbnail
from shards.run.run import Run
from shards.schema import JudgedTextRow

COUNT = 8  # samples: on 2 cores a base model takes a second or two for each
_MOST_WORDS = 3
_MAP_PX = 112


@dataclass(frozen=True, slots=True)
class DroppedText:
    """The words that sank a match, the worst first, and where the filter looked for that one."""

    words: list[AblatedWord]
    map: Thumbnail


def explain_gallery(
    run: Run, gallery: Gallery, count: int, tell: Callable[[str], None]
) -> tuple[dict[SampleId, dict[int, DroppedText]], str]:
    """Explain the dropped texts of the filtered samples nearest to the threshold.

    Returns the explained texts, by sample and number of the text; and why there are none, if so. A
    filter that would have to be fetched from a hub is not: a page must not wait for that.
    """
    picks = [pick for pick in gallery.groups.get("filtered", []) if _dropped(pick)][:count]
    if not picks:
        return {}, ""
    model = run_model(run, "filter").model
    if model not in SHIPPED and not Path(model).is_dir():
        return {}, f"the run's filter is not at {model}: no words are explained"
    try:
        explainer = open_explainer(run)
    except CheckpointError as error:
        return {}, str(error)
    explained: dict[SampleId, dict[int, DroppedText]] = {}
    for number, pick in enumerate(picks, 1):
        tell(f"explaining: sample {number} of {len(picks)}")
        picture = read_sample_image(run, pick.facts)
        if not isinstance(picture, str):
            explained[pick.sample_id] = _explain(explainer, picture, _dropped(pick))
    return explained, ""


def _explain(
    explainer: AttentionExplainer, picture: Image.Image, texts: Sequence[JudgedTextRow]
) -> dict[int, DroppedText]:
    explained: dict[int, DroppedText] = {}
    for row in texts:
        ablation = ablate_words(explainer, picture, row["text"])
        if indices := ablation.worst(_MOST_WORDS):
            (drawn,) = draw_attention(explainer, picture, row["text"], indices[:1])
            drawn.thumbnail((_MAP_PX, _MAP_PX))
            words = [ablation.words[index] for index in indices]
            explained[row["text_no"]] = DroppedText(words, encode_thumbnail(drawn))
    return explained


def _dropped(pick: GalleryPick) -> list[JudgedTextRow]:
    return [row for row in pick.texts if row["reason"] == "itm_below_threshold"]
