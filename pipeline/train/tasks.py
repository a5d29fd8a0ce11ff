"""The tasks of finetuning: what each trains, how, and on what (BLIP §5).

A new task is an objective in `objectives/`, an entry here, and its name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from models.blip.config import Role
from models.checkpoints.folder import CheckpointContent
from pipeline.train.finetune_config import FinetuneConfig
from pipeline.train.objective import Objective
from pipeline.train.objectives.caption import CaptionObjective
from pipeline.train.objectives.dialogue import DialogueObjective
from pipeline.train.objectives.joint import JointObjective
from pipeline.train.objectives.nlvr import NlvrObjective
from pipeline.train.objectives.retrieval import RetrievalObjective
from pipeline.train.objectives.vqa import VqaObjective
from pipeline.train.task_names import Task
from shards.training.annotation_file import Kind


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task: the role whose checkpoint is trained, and its objective on that checkpoint.

    `source` is the kind of its sources' texts; `prompted` says that a prompt goes before each.
    """

    role: Role
    objective: Callable[[CheckpointContent, FinetuneConfig], Objective]
    source: Kind = "captions"
    prompted: bool = False


TASKS: Mapping[Task, TaskSpec] = {
    "captioner": TaskSpec("captioner", CaptionObjective, prompted=True),
    "filter": TaskSpec("filter", RetrievalObjective),
    "retrieval": TaskSpec("filter", RetrievalObjective),
    "joint": TaskSpec("pretrain", JointObjective, prompted=True),
    "vqa": TaskSpec("vqa", VqaObjective, "questions"),
    "nlvr": TaskSpec("nlvr", NlvrObjective, "statements"),
    "dialogue": TaskSpec("filter", DialogueObjective, "dialogues"),
}


def spec_of(config: FinetuneConfig) -> TaskSpec:
    """Look up how a finetuning learns; a dialogue by likelihood learns as questions do."""
    if config.dialogue is not None and config.dialogue.by == "likelihood":
        return TASKS["vqa"]
    return TASKS[config.task]
