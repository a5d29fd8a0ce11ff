"""The tasks of finetuning: what each trains, how, and on what (BLIP §5).

A new task is an objective in `objectives/` and an entry here. This file loads no library: a
command's help lists the tasks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from models.blip.config import Role
    from shards.training.annotation_file import Kind

Task = Literal["captioner", "filter", "retrieval", "joint", "vqa", "nlvr", "dialogue"]


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task: the role whose checkpoint is trained, and its objective on that checkpoint.

    `objective` is FILE.CLASS below `objectives/`; `source` is the kind of its sources' texts;
    `prompted` says that a prompt goes before each.
    """

    role: "Role"
    objective: str
    source: "Kind" = "captions"
    prompted: bool = False


TASKS: Mapping[Task, TaskSpec] = {
    "captioner": TaskSpec("captioner", "caption.CaptionObjective", prompted=True),
    "filter": TaskSpec("filter", "retrieval.RetrievalObjective"),
    "retrieval": TaskSpec("filter", "retrieval.RetrievalObjective"),
    "joint": TaskSpec("pretrain", "joint.JointObjective", prompted=True),
    "vqa": TaskSpec("vqa", "vqa.VqaObjective", "questions"),
    "nlvr": TaskSpec("nlvr", "nlvr.NlvrObjective", "statements"),
    "dialogue": TaskSpec("filter", "dialogue.DialogueObjective", "dialogues"),
}
