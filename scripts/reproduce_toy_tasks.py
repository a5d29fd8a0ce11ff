"""Every task in miniature: pre-train a tiny network, finetune it by each toy recipe, and evaluate.

    python scripts/reproduce_toy_tasks.py [FOLDER]

Data are written in the field's own files, and all work is done by the commands that users type.
What is done in FOLDER (default: runs/toy) is not done again. Prints a table in Markdown.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from models.blip.tokenizer import train
from pipeline.toy import chance, dialogue, tasks, video
from pipeline.toy.tasks import ToyTasksConfig

CAPFILT = Path(sys.executable).with_name("capfilt")
RECIPES = Path(__file__).resolve().parents[1] / "flows" / "recipes" / "toy"
FILES = {
    "captioner": "captions/captions.json",
    "retrieval": "captions/captions.json",
    "vqa": "vqa/vqa.json",
    "nlvr": "nlvr/nlvr.json",
    "dialogue": "visdial/visdial.json",
}
ADDED = {"vqa": ["--by=kind"], "captioner": ["--judge=toy"]}
TRAINED, TESTED, CLIPS = 8_000, 500, 16


def main(folder: Annotated[Path, typer.Argument()] = Path("runs/toy")) -> None:
    """Train and evaluate every task in miniature, and print a table."""
    write(folder)
    learn(folder, "pretrain", FILES["captioner"], f"model.words={folder / 'words'}")
    for task, file in FILES.items():
        learn(folder, task, file, f"model.start={folder / 'pretrain' / 'model'}")
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


def learn(folder: Path, name: str, file: str, setting: str) -> None:
    """Train by the recipe of a task; a finished training ends at once."""
    verb = ["pretrain"] if name == "pretrain" else ["finetune", name]
    sources = json.dumps([{"annotations": str(folder / "train" / file)}])
    flags = ["--output", folder / name, "--set", f"data.sources={sources}", "--set", setting]
    subprocess.check_output([CAPFILT, *verb, RECIPES / f"{name}.yaml", *flags])


def of_pictures(folder: Path) -> "list[tuple[str | float, ...]]":
    """Evaluate every task on new pictures."""
    scores = {}
    for task, file in FILES.items():
        verb = "caption" if task == "captioner" else task
        flags = ["--annotations", folder / "test" / file, *ADDED.get(task, ())]
        scores[task] = evaluate(verb, folder / task / "model", *flags)
    captions = json.loads((folder / "test" / FILES["captioner"]).read_text())
    questions = json.loads((folder / "test" / FILES["vqa"]).read_text())
    own_text, ranks = chance.own_text(captions), range(1, dialogue.OPTIONS + 1)
    blind = chance.most_common(questions)
    return [
        ("retrieval", "TR@1", scores["retrieval"]["itm"]["tr@1"], own_text),
        ("retrieval", "IR@1", scores["retrieval"]["itm"]["ir@1"], own_text),
        ("captions", "true", scores["captioner"]["right"], chance.true_of_others(captions)),
        *(("VQA", kind, share, blind[kind]) for kind, share in scores["vqa"]["by_kind"].items()),
        ("NLVR2", "accuracy", scores["nlvr"]["accuracy"], 0.5),
        ("dialogue", "R@1", scores["dialogue"]["r@1"], 1 / len(ranks)),
        ("dialogue", "MRR", scores["dialogue"]["mrr"], sum(1 / n for n in ranks) / len(ranks)),
    ]


def of_videos(folder: Path) -> "list[tuple[str | float, ...]]":
    """Evaluate the image models on videos, which they never saw."""
    clips, questions = folder / "video/msrvtt_test.jsonl", folder / "video/test_qa.json"
    retrieval = evaluate("video", folder / "retrieval" / "model", clips)["itm"]
    answers = evaluate("video", folder / "vqa" / "model", questions)
    return [
        ("video, zero-shot", "text to video R@1", retrieval["ir@1"], 1 / CLIPS),
        ("video, zero-shot", "median rank", retrieval["ir_median_rank"], (CLIPS + 1) / 2),
        ("video QA, zero-shot", "accuracy", answers["accuracy"], 1 / 4),
    ]


def evaluate(task: str, model: Path, *flags: str | Path) -> dict[str, Any]:
    """Run `capfilt evaluate` for its numbers."""
    return json.loads(subprocess.check_output([CAPFILT, "evaluate", task, model, *flags, "--json"]))


if __name__ == "__main__":
    typer.run(main)
