"""The registry of tasks: complete, and alone in knowing them."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from pipeline.train import objectives
from pipeline.train.finetune import load_objective, spec_of
from pipeline.train.finetune_config import FinetuneConfig
from pipeline.train.objective import Objective
from pipeline.train.tasks import TASKS, Task

LOADED = """
import sys
import pipeline.train.tasks
print(sorted({"torch", "transformers", "pydantic", "pyarrow"} & sys.modules.keys()))
"""


def config_of(task: str, **more: object) -> FinetuneConfig:
    shared = {"data": {"sources": [{"shards": ["none"]}]}, "model": {"start": "none"}}
    return FinetuneConfig.model_validate(shared | {"task": task} | more)


def test_every_name_has_its_entry() -> None:
    assert tuple(TASKS) == get_args(Task)  # the order is that of a command's help


@pytest.mark.parametrize("task", TASKS)
def test_an_entry_names_an_objective(task: Task) -> None:
    kind = load_objective(TASKS[task])
    assert isinstance(kind, type)
    assert issubclass(kind, Objective)


def test_every_objective_stands_in_a_file_of_its_own() -> None:
    files = {path.stem for path in Path(objectives.__path__[0]).glob("*.py")}
    modules = {spec.objective.partition(".")[0] for spec in TASKS.values()}
    assert modules <= files
    assert len(modules) == len(TASKS) - 1  # a filter is a retrieval model too


def test_the_registry_needs_no_library() -> None:
    assert subprocess.check_output([sys.executable, "-c", LOADED], text=True) == "[]\n"


@pytest.mark.parametrize("task", TASKS)
def test_a_task_learns_as_its_entry_says(task: Task) -> None:
    assert spec_of(config_of(task)) is TASKS[task]


def test_a_dialogue_by_likelihood_learns_as_questions_do() -> None:
    assert spec_of(config_of("dialogue", dialogue={"by": "likelihood"})) is TASKS["vqa"]
    assert spec_of(config_of("dialogue", dialogue={"by": "match"})) is TASKS["dialogue"]


def test_an_unknown_task_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'captioner', 'filter', .*'nlvr' or 'dialogue'"):
        config_of("segmentation")
