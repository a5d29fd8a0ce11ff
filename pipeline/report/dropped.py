"""Why texts of the gallery were dropped: the words that sank them, and a map of the worst one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from models.checkpoints.weights import SHIPPED, CheckpointError
from models.roles.attention_explainer import AttentionExplainer
from pipeline.explain.match import open_attender, picture_of
from pipeline.explain.run_models import run_model
from pipeline.explain.word_ablation import AblatedWord, ablate_words, attention_of
from pipeline.report.gallery import Gallery, GalleryPick
from pipeline.report.thumbnail import Place, Thumbnail, encode_thumbnail
from shards.run.run import Run

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
) -> tuple[dict[Place, dict[int, DroppedText]], str]:
    """Explain the dropped texts of the filtered samples nearest to the threshold.

    Gives what was found, by sample and number of the text; and why there is nothing, if so. A
    filter that would have to be fetched from a hub is not: a page must not wait for that.
    """
    picks = [pick for pick in gallery.groups.get("filtered", []) if _dropped(pick)][:count]
    if not picks:
        return {}, ""
    model = run_model(run, "filter").model
    if model not in SHIPPED and not Path(model).is_dir():
        return {}, f"the run's filter is not at {model}: no words are explained"
    try:
        attender = open_attender(run)
    except CheckpointError as error:
        return {}, str(error)
    found: dict[Place, dict[int, DroppedText]] = {}
    for number, pick in enumerate(picks, 1):
        tell(f"explaining: sample {number} of {len(picks)}")
        picture = picture_of(run, pick.facts)
        if not isinstance(picture, str):
            own = _doubts(attender, picture, _dropped(pick))
            found[pick.place] = own
    return found, ""


def _doubts(
    attender: AttentionExplainer, picture: Image.Image, texts: Sequence[dict[str, Any]]
) -> dict[int, DroppedText]:
    found: dict[int, DroppedText] = {}
    for row in texts:
        judged = ablate_words(attender, picture, row["text"])
        places = judged.worst(_MOST_WORDS)
        if places:
            (drawn,) = attention_of(attender, picture, row["text"], places[:1])
            drawn.thumbnail((_MAP_PX, _MAP_PX))
            words = [judged.words[place] for place in places]
            found[row["text_no"]] = DroppedText(words, encode_thumbnail(drawn))
    return found


def _dropped(pick: GalleryPick) -> list[dict[str, Any]]:
    return [row for row in pick.texts if row["reason"] == "itm_below_threshold"]
