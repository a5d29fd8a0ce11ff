"""Finetune the next captioner and filter on human-annotated pairs (BLIP §3.3, §5.1, §5.2).

*Decoupled*, as in the paper, the captioner learns LM and the filter ITC + ITM, each from a copy of
the pre-trained network: together they would confirm each other's mistakes (BLIP §4.4, Table 4).
*Joint* trains one network with all three losses, and writes both roles out of it. Three more tasks
need annotations of their own: answers to questions (§5.3), statements about two pictures (§5.4) and
dialogues (§5.5).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from models.blip.config import Role
from models.blip.tokenizer import normalise_question
from models.checkpoints.conversion import for_hugging_face, import_folder
from models.checkpoints.folder import CheckpointContent
from models.checkpoints.transfer import transfer
from pipeline.train.finetune_config import FinetuneConfig
from pipeline.train.mixture import TaskSource
from pipeline.train.objective import Objective
from pipeline.train.tasks import TASKS, Task, TaskSpec
from shards.training.source import Source


def start_finetuning(config: FinetuneConfig) -> Objective:
    """Load what a finetuning starts from; CheckpointError if it cannot become the task's."""
    spec = spec_of(config)
    content = import_folder(Path(config.model.start), config.model.image_size).content
    if content.role != spec.role:
        content = _part(content, spec.role, config.seed)
    objective = load_objective(spec)(content, config)
    if config.model.compile:
        objective.compile_towers()
    return objective


def spec_of(config: FinetuneConfig) -> TaskSpec:
    """Look up how a finetuning learns; a dialogue by likelihood learns as questions do."""
    if config.dialogue is not None and config.dialogue.by == "likelihood":
        return TASKS["vqa"]
    return TASKS[config.task]


def load_objective(spec: TaskSpec) -> Callable[[CheckpointContent, FinetuneConfig], Objective]:
    """Import the class of a task's objective."""
    file, _, name = spec.objective.partition(".")
    found: type[Objective] = getattr(import_module(f"pipeline.train.objectives.{file}"), name)
    return found


def check_sources(task: Task, sources: Sequence[Source]) -> None:
    """Raise ValueError unless the sources are of the kind that the task learns from."""
    wanted = TASKS[task].source
    for source in sources:
        if source.kind != wanted:
            raise ValueError(
                f"{task} learns from {wanted}; {source.name} has {source.kind}. Name a source of "
                f"{wanted}: `annotations`, a JSON file in the form of its data set"
            )


def questions_beside(config: FinetuneConfig, questions: Sequence[Source]) -> TaskSource | None:
    """Describe the questions that join in, and their share of the steps; None if none do."""
    section = config.questions
    if section is None:
        return None
    return TaskSource(questions, section.max_tokens, normalise_question, section.share)


def _part(whole: CheckpointContent, role: Role, seed: int) -> CheckpointContent:
    """Take a role out of a pre-training checkpoint.

    A filter goes on with temperature and momentum copies as they are, as in the original: copies
    of what is trained would teach nothing at first, and another temperature shakes ITC.
    """
    if role == "vqa" or role == "nlvr":
        return transfer(whole, role, seed)
    part = for_hugging_face(whole, role)
    if role != "filter":
        return part
    kept = {
        name: tensor
        for name, tensor in whole.tensors.items()
        if name == "temp" or name.partition(".")[0].endswith("_m")
    }
    return replace(part, tensors={**part.tensors, **kept})
