"""How well does a filter, trained from nothing on a few thousand real pairs, find real noise?

    python scripts/filter_noisy_real.py DATA [FOLDER]

DATA holds `web/clipart-*.tar` (titles as their authors typed them), `web/judged.parquet` (key,
text, describes: yes, no or unsure, for some of them) and `human/*.tar`. A tiny network is
pre-trained on both, with random weights to begin with, and finetuned as a filter on the human
pairs. Its scores are compared with the judgements, beside the baseline that reads the text alone:
a title that occurs ten times or more is noise. The human pairs are no judge of themselves.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import duckdb
import typer

from flows.cli.display.progress import watch_training
from flows.training import run as train
from flows.training.recipe import FinetuneRecipe, PretrainRecipe, TrainingRecipe
from pipeline import evaluate
from pipeline.evaluate import LabelledPair, metrics

FREQUENT = 10
SHARED: dict[str, Any] = {
    "dtype": "fp32",
    "augment": {"crop": [0.5, 1.0], "operations": 0},
    "loss": {"queue": 960},
    "launch": {"kind": "local"},
    "trackers": [],
}
RATE = {"decay": "cosine", "temperature": 0.05}
LEARNING = {"betas": [0.9, 0.98], "clip": 1.0, "batch_size": 24, "epochs": None}
WIDE = {"initializer_range": 0.1}


def main(
    data: Path,
    folder: Annotated[Path, typer.Argument()] = Path("runs/noisy-real"),
    steps: int = 2_000,
) -> None:
    """Train a filter, score the judged pairs, and print its ROC and the baseline's."""
    web, human = str(data / "web/clipart-*.tar"), str(data / "human/*.tar")
    model = pretrain(folder / "pretrain", [web, human], steps)
    scorer = evaluate.open_filter(finetune(folder / "filter", model, human, steps // 4))
    judged = f"from '{data}/web/judged.parquet' where describes != 'unsure'"
    labels = dict(duckdb.sql(f"select key, describes = 'yes' {judged}").fetchall())
    pairs = (pair for pair in evaluate.read_pairs([web]) if name_of(pair) in labels)
    numbers = evaluate.measure_filter(scorer, pairs, label=lambda pair: labels[name_of(pair)])
    print(json.dumps({"filter": numbers, "titles alone": baseline(web, labels)}, indent=2))


def pretrain(folder: Path, shards: list[str], steps: int) -> Path:
    """Pre-train a tiny network of 64 pixels, its words learned from the texts."""
    recipe = SHARED | {
        "output": str(folder),
        "data": {"sources": [{"shards": [url]} for url in shards], "shuffle": 200, "lanes": 12},
        "model": {"size": "tiny", "image_size": 64, "words": 4000, "vision": WIDE, "text": WIDE},
        "rate": RATE | {"highest": 1e-3, "warmup_steps": 200},
        "step": LEARNING | {"steps": steps},
    }
    return learn(PretrainRecipe.model_validate(recipe), "pretrain")


def finetune(folder: Path, start: Path, human: str, steps: int) -> Path:
    """Finetune the filter on the human pairs."""
    recipe = SHARED | {
        "output": str(folder),
        "task": "filter",
        "data": {"sources": [{"shards": [human]}], "shuffle": 200, "max_tokens": 35, "lanes": 12},
        "model": {"start": str(start)},
        "rate": RATE | {"highest": 3e-4, "warmup_steps": 50},
        "step": LEARNING | {"steps": steps},
    }
    return learn(FinetuneRecipe.model_validate(recipe), "filter")


def learn(recipe: TrainingRecipe, role: str) -> Path:
    """Train, in sight, and find what was trained."""
    job = train.prepare(recipe)
    with watch_training(job.steps) as display:
        train.run(job, display)
    return train.checkpoint_of(Path(recipe.output), role)


def baseline(web: str, labels: dict[str, bool]) -> dict[str, Any]:
    """Call a title that is frequent noise, and score the others by how rare they are."""
    texts = {name_of(pair): pair.texts[0] for pair in evaluate.read_pairs([web])}
    repeats = Counter(texts.values())
    keys = [key for key in labels if key in texts]
    described, times = [labels[key] for key in keys], [repeats[texts[key]] for key in keys]
    noisy, called = [not right for right in described], [count >= FREQUENT for count in times]
    return {
        "roc_auc": metrics.roc_auc([-count for count in times], described),
        "precision of noise": metrics.precision(called, noisy),
        "recall of noise": metrics.recall(called, noisy),
    }


def name_of(pair: LabelledPair) -> str:
    """Return a pair's key without the folders before it, as the judgements have it."""
    return pair.key.rpartition("/")[2]


if __name__ == "__main__":
    typer.run(main)
