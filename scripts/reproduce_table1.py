"""Reproduce the paper's Table 1 on the toy world: what do filter and captioner add?

    python scripts/reproduce_table1.py [FOLDER] [--seeds 3] [--arms beam shared continue]

Seeds run side by side, a core each. What is done in FOLDER (default: runs/table1) is not done
again. Prints a table in Markdown; docs/results has what it printed here.
"""

import argparse
import os
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).resolve().parents[1] / "flows" / "recipes" / "study" / "table1.yaml"
MORE = "beam, shared, continue, 'own mistakes'"
COLUMNS = {
    "TR@1": ("retrieval", "itm", "tr@1"),
    "IR@1": ("retrieval", "itm", "ir@1"),
    "exact match": ("captions", "exact_match"),
    "CIDEr": ("captions", "cider"),
    "true captions": ("captions", "right"),
}
TOOLS = {
    "filter ROC AUC": ("filter", "roc_auc"),
    "precision": ("filter", "precision"),
    "recall": ("filter", "recall"),
    "noise ratio": ("filter", "noise_ratio"),
    "captioner right, nucleus": ("captioner, nucleus", "right"),
    "captioner right, greedy": ("captioner, greedy", "right"),
}
LET_THROUGH = {
    f"{origin}: {name.replace('_', ' ')}": (origin, name)
    for origin in ("web", "synthetic")
    for name in ("true", "kept", "true_of_kept")
}


def main() -> None:
    """Run all seeds, then print mean and deviation of each number."""
    parser = argparse.ArgumentParser(description="BLIP's Table 1 on the toy world.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs/table1"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--arms", nargs="*", default=[], help=MORE)
    options = parser.parse_args()
    began = time.monotonic()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    at_once = min(options.seeds, os.cpu_count() or 1)
    os.environ |= {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // at_once))}
    with ProcessPoolExecutor(at_once, get_context("spawn")) as pool:
        jobs = [(options.recipe, options.folder, seed, tuple(options.arms)) for seed in seeds]
        studies = list(pool.map(one_seed, *zip(*jobs, strict=True)))
    minutes = (time.monotonic() - began) / 60
    print(f"\n{options.seeds} seeds in {minutes:.0f} minutes, {at_once} at once\n")
    print(table([study["arms"] for study in studies], COLUMNS))
    for columns in (TOOLS, LET_THROUGH):
        print(table([study["tools"] for study in studies], columns))


def one_seed(recipe: Path, folder: Path, seed: int, arms: tuple[str, ...]) -> dict[str, Any]:
    """Run the study of one seed, in a process of its own."""
    import logging

    import yaml

    from flows.cli.display.progress import watch_training
    from flows.study.recipe import StudyRecipe
    from flows.study.table1 import MAIN_ARMS, Study

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parsed = StudyRecipe.model_validate(yaml.safe_load(recipe.read_text()))
    began = time.monotonic()
    study = Study(parsed, folder / f"seed-{seed}", seed, watch_training)
    numbers = study.run((*MAIN_ARMS, *arms))
    print(f"seed {seed}: {(time.monotonic() - began) / 60:.1f} minutes", file=sys.stderr)
    return numbers


def table(studies: list[dict[str, Any]], columns: dict[str, tuple[str, ...]]) -> str:
    """Write mean ± deviation over the seeds, a row for each arm."""
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for arm in studies[0]:
        cells = [cell([at(study[arm], path) for study in studies]) for path in columns.values()]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def at(numbers: dict[str, Any], path: tuple[str, ...]) -> float | None:
    """Look up a number by its path."""
    value: Any = numbers
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def cell(values: list[float | None]) -> str:
    """Write mean ± sample deviation; a dash where there is no number."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "-"
    if len(numbers) == 1:
        return f"{numbers[0]:.3f}"
    return f"{statistics.mean(numbers):.3f} ± {statistics.stdev(numbers):.3f}"


if __name__ == "__main__":
    main()
