"""How well does a filter, trained from nothing on a few thousand real pairs, find real noise?

    python scripts/filter_noisy_real.py DATA [FOLDER]

DATA holds `web/clipart-*.tar` (titles as their authors typed them), `web/judged.parquet` (key,
text, describes: yes, no or unsure, for some of them) and `human/*.tar`. A tiny network is
pre-trained on both, with random weights to begin with, and finetuned as a filter on the human
pairs. Its scores are compared with the judgements, beside the baseline that reads the text alone:
a title that occurs ten times or more is noise. The human pairs are no judge of themselves.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flows.cli.progress import watch_training
from flows.training import run as train
from flows.training.recipe import FinetuneRecipe, PretrainRecipe, TrainingRecipe
from pipeline import evaluate
from pipeline.evaluate import LabelledPair, metrics

FREQUENT = 10
SHARED: dict[str, Any] = {
    "dtype": "fp32",
    "augment": {"crop": [0.5, 1.0], "operations": 0},
    "launch": {"kind": "local"},
    "trackers": [],
}
LEARNING = {"betas": [0.9, 0.98], "clip": 1.0, "batch_size": 24, "epochs": None}
WIDE = {"initializer_range": 0.1}


def main() -> None:
    """Train, score, and print both ROCs."""
    parser = argparse.ArgumentParser(description="A filter against judged noise of the real web.")
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs/noisy-real"))
    parser.add_argument("--steps", type=int, default=2_000)
    options = parser.parse_args()
    web, human = (str(options.data / name) for name in ("web/clipart-*.tar", "human/*.tar"))
    model = pretrain(options.folder / "pretrain", [web, human], options.steps)
    scorer = finetune(options.folder / "filter", model, human, options.steps // 4)
    rows = pq.read_table(options.data / "web" / "judged.parquet").to_pylist()
    labels = {row["key"]: row["describes"] for row in rows if row["describes"] != "unsure"}

    def label(pair: LabelledPair) -> bool | None:
        describes = labels.get(pair.key.rpartition("/")[2])
        return None if describes is None else describes == "yes"

    opened = evaluate.open_filter(scorer)
    numbers = evaluate.measure_filter(opened, judged(web, labels), label=label)
    print(json.dumps({"filter": numbers, "titles alone": baseline(web, labels)}, indent=2))


def pretrain(folder: Path, shards: list[str], steps: int) -> Path:
    """Pre-train a tiny network of 64 pixels, its words learned from the texts."""
    recipe = SHARED | {
        "output": str(folder),
        "data": {"sources": [{"shards": [url]} for url in shards], "shuffle": 200},
        "model": {"size": "tiny", "image_size": 64, "words": 4000, "vision": WIDE, "text": WIDE},
        "loss": {"queue": 960},
        "rate": {"highest": 1e-3, "warmup_steps": 200, "decay": "cosine", "temperature": 0.05},
        "step": LEARNING | {"steps": steps},
    }
    return learn(PretrainRecipe.model_validate(recipe), "pretrain")


def finetune(folder: Path, start: Path, human: str, steps: int) -> Path:
    """Finetune the filter on the human pairs."""
    recipe = SHARED | {
        "output": str(folder),
        "task": "filter",
        "data": {"sources": [{"shards": [human]}], "shuffle": 200, "max_tokens": 35},
        "model": {"start": str(start)},
        "loss": {"queue": 960},
        "rate": {"highest": 3e-4, "warmup_steps": 50, "decay": "cosine", "temperature": 0.05},
        "step": LEARNING | {"steps": steps},
    }
    return learn(FinetuneRecipe.model_validate(recipe), "filter")


def learn(recipe: TrainingRecipe, role: str) -> Path:
    """Train, in sight, and find what was trained."""
    job = train.prepare(recipe)
    with watch_training(job.steps) as display:
        train.run(job, display)
    return train.checkpoint_of(Path(recipe.output), role)


def judged(web: str, labels: dict[str, str]) -> Iterator[LabelledPair]:
    """Read the pairs that were judged."""
    pairs = evaluate.read_pairs([web])
    return (pair for pair in pairs if pair.key.rpartition("/")[2] in labels)


def baseline(web: str, labels: dict[str, str]) -> dict[str, Any]:
    """Call a title that is frequent noise, and score the others by how rare they are."""
    texts = {pair.key.rpartition("/")[2]: pair.texts[0] for pair in evaluate.read_pairs([web])}
    times = Counter(texts.values())
    keys = [key for key in labels if key in texts]
    noisy = [labels[key] == "no" for key in keys]
    called = [times[texts[key]] >= FREQUENT for key in keys]
    return {
        "roc_auc": metrics.roc_auc([-times[texts[key]] for key in keys], [not n for n in noisy]),
        "precision of noise": metrics.precision(called, noisy),
        "recall of noise": metrics.recall(called, noisy),
    }


if __name__ == "__main__":
    main()
