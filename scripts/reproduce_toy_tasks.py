"""Every task in miniature: pre-train a tiny network, finetune it by each toy recipe, and evaluate.

    python scripts/reproduce_tasks.py [FOLDER]

Data are written in the field's own files, and all work is done by the commands that users type.
What is done in FOLDER (default: runs/toy) is not done again. Prints a table in Markdown.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from models.blip.tokenizer import train
from pipeline.toy import chance, dialogue, tasks, video
from pipeline.toy.tasks import ToyTasksConfig

RECIPES = Path(__file__).resolve().parents[1] / "flows" / "recipes" / "toy"
FILES = {
    "captioner": "captions/captions.json",
    "retrieval": "captions/captions.json",
    "vqa": "vqa/vqa.json",
    "nlvr": "nlvr/nlvr.json",
    "dialogue": "visdial/visdial.json",
}
TRAINED, TESTED, CLIPS = 8_000, 500, 16


def main() -> None:
    """Write, train, evaluate, and print."""
    parser = argparse.ArgumentParser(description="Every task in miniature.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs/toy"))
    folder = parser.parse_args().folder
    write(folder)
    finetune("pretrain", folder, FILES["captioner"], f"model.words={folder / 'words'}")
    for task, file in FILES.items():
        finetune(f"finetune {task}", folder, file, f"model.start={folder / 'pretrain' / 'model'}")
    print("| task | number | model | chance |\n| --- | --- | --- | --- |")
    for row in (*of_pictures(folder), *of_videos(folder)):
        print("| " + " | ".join(f"{x:.3f}" if isinstance(x, float) else x for x in row) + " |")


def write(folder: Path) -> None:
    """Write the words, and what is trained and tested on."""
    if (words := folder / "words" / "tokenizer.json").exists():  # it is written last
        return
    for split, samples, seed in (("train", TRAINED, 0), ("test", TESTED, 1)):
        config = ToyTasksConfig(samples=samples, seed=seed, kinds=4)
        tasks.write_captions(folder / split / "captions", config)
        tasks.write_questions(folder / split / "vqa", config)
        tasks.write_statements(folder / split / "nlvr", config)
        dialogue.write_dialogues(folder / split / "visdial", config)
    video.write_videos(folder / "video", ToyTasksConfig(samples=CLIPS, seed=2, kinds=4))
    words.parent.mkdir(exist_ok=True)
    words.write_text(train([*tasks.corpus(), *dialogue.corpus()], 400).to_json())


def finetune(task: str, folder: Path, file: str, setting: str) -> None:
    """Train by the recipe of a task; a finished training ends at once."""
    name = task.split()[-1]
    sources = json.dumps([{"annotations": str(folder / "train" / file)}])
    settings = ("--set", f"data.sources={sources}", "--set", setting)
    recipe, output = str(RECIPES / f"{name}.yaml"), str(folder / name)
    capfilt(*task.split(), recipe, "--output", output, *settings)


def of_pictures(folder: Path) -> "list[tuple[str | float, ...]]":
    """Evaluate every task on new pictures."""
    found = {}
    for task, file in FILES.items():
        flags = (
            "--annotations",
            folder / "test" / file,
            *{"vqa": ["--by=kind"], "captioner": ["--judge=toy"]}.get(task, []),
        )
        verb = "caption" if task == "captioner" else task
        found[task] = evaluate(verb, folder / task / "model", *flags)
    captions, questions = (
        json.loads((folder / "test" / FILES[task]).read_text()) for task in ("captioner", "vqa")
    )
    one_of, options = chance.own_text(captions), range(1, dialogue.OPTIONS + 1)
    blind = chance.most_common(questions)
    return [
        ("retrieval", "TR@1", found["retrieval"]["itm"]["tr@1"], one_of),
        ("retrieval", "IR@1", found["retrieval"]["itm"]["ir@1"], one_of),
        ("captions", "true", found["captioner"]["right"], chance.true_of_others(captions)),
        *(("VQA", kind, share, blind[kind]) for kind, share in found["vqa"]["by_kind"].items()),
        ("NLVR2", "accuracy", found["nlvr"]["accuracy"], 0.5),
        ("dialogue", "R@1", found["dialogue"]["r@1"], 1 / len(options)),
        ("dialogue", "MRR", found["dialogue"]["mrr"], sum(1 / n for n in options) / len(options)),
    ]


def of_videos(folder: Path) -> "list[tuple[str | float, ...]]":
    """Evaluate the image models on videos, which they never saw."""
    seen = evaluate("video", folder / "retrieval" / "model", folder / "video/msrvtt_test.jsonl")
    said = evaluate("video", folder / "vqa" / "model", folder / "video/test_qa.json")
    return [
        ("video, zero-shot", "text to video R@1", seen["itm"]["ir@1"], 1 / CLIPS),
        ("video, zero-shot", "median rank", seen["itm"]["ir_median_rank"], (CLIPS + 1) / 2),
        ("video QA, zero-shot", "accuracy", said["accuracy"], 1 / 4),
    ]


def evaluate(task: str, model: Path, *flags: object) -> dict[str, Any]:
    """Ask `capfilt evaluate` for numbers."""
    found: dict[str, Any] = json.loads(capfilt("evaluate", task, model, *flags, "--json"))
    return found


def capfilt(*flags: object) -> str:
    """Run a command, and give what it prints."""
    command = [sys.executable, "-c", "from flows.cli import main; main()", *map(str, flags)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
