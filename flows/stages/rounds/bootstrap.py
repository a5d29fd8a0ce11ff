"""Rounds: pre-train, finetune captioner and filter, clean, evaluate, and again.

Round 1 pre-trains on the web's texts as they are, each later one on what the round before it kept;
all on the human-annotated pairs too, which pass unfiltered. Whatever is done stays done: the same
command goes on at the stage that was cut off, and within it where that stage saved its state.
"""

import gc
import json
import logging
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from flows.engines.engine import EngineError
from flows.lock import lock_folder
from flows.recipe import RecipeError, dump_recipe
from flows.rounds.approval import Answer, read_answer, write_answer
from flows.rounds.ledger import (
    EVALUATION,
    Entry,
    Ledger,
    read_ledger,
    read_stage,
    stage_folder,
)
from flows.rounds.names import STAGES, Next, Stage
from flows.rounds.recipe import (
    BootstrapRecipe,
    Experiment,
    RetrievalSection,
    cleaning,
    decoding,
    finetuning,
    pretraining,
    shards_of,
)
from flows.stages import clean
from flows.stages.clean import RunListener
from flows.stages.first_checks import check_begun, check_rounds
from flows.training import run as train
from flows.training.log import Display
from flows.training.recipe import TrainingRecipe
from models.blip.config import Dtype, resolve_dtype
from models.roles.captioner import BlipCaptioner
from pipeline.clean.judge import odd_thresholds
from pipeline.evaluate import (
    EvaluateConfig,
    measure_captioner,
    measure_retrieval,
    open_retriever,
    read_pairs,
)
from pipeline.printable import number_of
from shards.inputs.listing import list_inputs
from shards.inputs.shard import InputOptions
from shards.inputs.text import TextSource
from shards.run.run import fingerprint
from shards.store import Store
from shards.training.source import Source, SourceConfig
from shards.training.source_reader import open_source

# What changes no stage's result, or stands in the identity by its content.
_log = logging.getLogger(__name__)
_OUTSIDE = {"recipe_version", "output", "human", "held_out", "save", "launch", "trackers"}
_OUTSIDE_ROUNDS = {"rounds", "gate", "approve", "web", "engine"}


class Outcome(Protocol):
    """What a step came to, for who follows it."""

    result: Any


class StageCallbacks(Protocol):
    """What goes along with the work on a stage, and hears what it came to."""

    def training(self, steps: int) -> AbstractContextManager[Display]:
        """Follow a training of so many steps."""

    def cleaning(self) -> AbstractContextManager[RunListener]:
        """Follow a cleaning."""

    def ended(self, number: int, stage: Stage, entry: Entry, before: bool) -> None:
        """Report what a stage came to; `before`: it was done already."""


class RoundCallbacks(StageCallbacks, Protocol):
    """What goes along with the rounds: hears what happens, and is asked before a next one."""

    def step(self, name: str) -> AbstractContextManager[Outcome]:
        """Accompany a stage, the gate behind the stages, or what comes of an answer."""

    def ask(self, ledger: Ledger, number: int) -> Answer | None:
        """Ask whether the round after this one may begin; None: not answered yet."""


@dataclass(frozen=True, slots=True)
class RoundsJob:
    """Prepared rounds; the recipe is resolved."""

    recipe: BootstrapRecipe
    folder: Path
    ledger: Ledger


def prepare(recipe: BootstrapRecipe) -> RoundsJob:
    """Check all that can be checked before work starts, and open or begin the ledger.

    Raises RecipeError, RunMismatch where the folder holds other rounds, FolderInUse where another
    process goes round there, and what opening the sources raises.
    """
    check_rounds(recipe)
    for doubt in odd_thresholds(recipe.clean.judge.threshold):
        _log.warning("warning: %s", doubt)
    folder = Path(recipe.output).absolute()
    human, held_out = open_human(recipe)
    options = InputOptions(text=TextSource.parse(recipe.web.text))
    web = list_inputs(recipe.web.urls, recipe.web.root, options)
    check_apart({shard.url for shard in web}, "web", held_out)
    update = {"output": str(folder), "dtype": _dtype(folder, recipe)}
    recipe = recipe.model_copy(update=update)
    shards = fingerprint({shard.shard: shard.size_bytes for shard in web})
    identity = identity_of(recipe, human, held_out, _OUTSIDE_ROUNDS)
    identity["web"] = {"shards": shards, "repeat": recipe.web.repeat}
    with lock_folder(folder):
        ledger = Ledger(folder, identity)
        Store(str(folder)).put("recipe.yaml", dump_recipe(recipe).encode())
    return RoundsJob(recipe, folder, ledger)


def run(job: RoundsJob, callbacks: RoundCallbacks) -> Ledger:
    """Go through the rounds, from where they are; returns their ledger.

    `flows/deployable/bootstrap.py` has the same steps, as Prefect's tasks.
    """
    with lock_folder(job.folder):
        job.ledger.refresh()
        number, then = 0, "next"
        while then == "next":
            number += 1
            for stage in STAGES:
                with callbacks.step(f"round {number}: {stage}"):
                    do_stage(job, number, stage, callbacks)
            with callbacks.step(f"round {number}: gate") as step:
                step.result = then = judge_round(job, number)
            if then == "ask":
                answer = callbacks.ask(job.ledger, number)
                with callbacks.step(f"round {number}: approval") as step:
                    step.result = then = take_answer(job, number, answer)
    return job.ledger


def do_stage(job: RoundsJob, number: int, stage: Stage, callbacks: StageCallbacks) -> None:
    """Do a stage of a round, unless it is done; whoever calls holds the folder."""
    entry = read_stage(job.folder, number, stage)
    before = entry is not None
    if entry is None:
        job.ledger.begin(number, stage)
        _do(job, number, stage, callbacks)
        free_memory()
        entry = read_stage(job.folder, number, stage)
        if entry is None:
            raise EngineError(
                f"{stage_folder(job.folder, number, stage)} holds no result of {stage}, though "
                f"round {number} has just done it; expected that nobody else changes the "
                "folder. Run the same command again"
            )
    job.ledger.end(number, stage, entry)
    callbacks.ended(number, stage, entry, before)


def judge_round(job: RoundsJob, number: int) -> Next:
    """Decide what comes after a round whose stages are done."""
    improved = job.ledger.rounds[-1]["gate"]["improved"]
    if job.recipe.gate == "stop" and not improved:
        job.ledger.ended = "gate"
    elif number == job.recipe.rounds:
        job.ledger.ended = "rounds"
    else:
        job.ledger.ended = None
        asks = job.recipe.approve and not is_approved(job.folder, number)
        return "ask" if asks else "next"
    job.ledger.write()
    return "over"


def take_answer(job: RoundsJob, number: int, answer: Answer | None) -> Next:
    """Write down what a person has answered, and decide by it; None: nobody has."""
    if answer is not None and answer != read_answer(job.folder, number):
        write_answer(job.folder, number, answer)
    if answer is not None and answer.approve:
        return "next"
    job.ledger.ended = "approval"
    job.ledger.write()
    return "over"


def exit_code(ledger: Ledger) -> int:
    """0 complete, 3 complete with damaged or quarantined web shards, as of a cleaning."""
    shards = [entry["clean"]["shards"] for entry in ledger.rounds if "clean" in entry]
    return 3 if any(counts["damaged"] or counts["quarantined"] for counts in shards) else 0


def approve(folder: Path, number: int | None, answer: Answer) -> tuple[int, Answer]:
    """Answer whether the round after this one may begin; None: after the last one that is done.

    Returns the round, and the answer that holds: an earlier one, if it says the same. Raises
    RecipeError if the round is not done.
    """
    check_begun(folder)
    if number is None:
        ledger = read_ledger(folder)
        assert ledger is not None
        done = [entry["round"] for entry in ledger["rounds"] if "gate" in entry]
        number = max(done, default=1)
    if read_stage(folder, number, STAGES[-1]) is None:
        raise RecipeError(
            f"{folder}: round {number} is not done; the round that is done and waits is approved"
        )
    earlier = read_answer(folder, number)
    if earlier is not None and earlier.approve == answer.approve:
        return number, earlier
    write_answer(folder, number, answer)
    return number, answer


def is_approved(folder: Path, number: int) -> bool:
    """Check whether the round after this one may begin: approved, or begun already."""
    answer = read_answer(folder, number)
    return (answer is not None and answer.approve) or stage_folder(
        folder, number + 1, "pretrain"
    ).is_dir()


def open_human(recipe: Experiment) -> tuple[Source, Source]:
    """Open the human pairs, to train on and held out; RecipeError if a shard is in both."""
    human = open_source(shards_of(recipe.human))
    held_out = open_source(SourceConfig(shards=recipe.held_out.urls))
    check_apart({part.url for part in human.parts}, "human", held_out)
    trained_on = {part.sha256: part.url for part in human.parts}
    for part in held_out.parts:
        if part.sha256 in trained_on:
            raise RecipeError(
                f"held_out: {part.url} has the content of {trained_on[part.sha256]}, which is "
                "trained on; hold out shards of their own"
            )
    return human, held_out


def identity_of(
    recipe: Experiment, human: Source, held_out: Source, outside: Collection[str] = ()
) -> dict[str, Any]:
    """Gather what decides the result: of sources the content, not the place."""
    identity = recipe.model_dump(mode="json", exclude=_OUTSIDE.union(outside))
    del identity["data"]["decode_threads"], identity["evaluate"]["batch_size"]
    pairs = {"name": human.name, "repeat": human.repeat}
    return identity | {"human": pairs, "held_out": held_out.name}


def check_apart(trained_on: set[str], what: str, held_out: Source) -> None:
    """Raise RecipeError if a held-out shard is trained on."""
    both = sorted(trained_on & {part.url for part in held_out.parts})
    if both:
        raise RecipeError(
            f"held_out: {number_of(len(both), 'shard')} under {what} too, the first is {both[0]}; "
            "hold out shards of their own"
        )


def measure(
    folder: Path, recipe: Experiment, how: RetrievalSection, max_tokens: int, dtype: Dtype
) -> Entry:
    """Measure a filter's or pre-trained network's retrieval on the held-out pairs."""
    device = str(train.device_here(recipe.launch))
    config = EvaluateConfig(
        batch_size=how.batch_size, max_tokens=max_tokens, dtype=dtype, device=device
    )
    pairs = read_pairs(recipe.held_out.urls, how.limit)
    retrieval = measure_retrieval(open_retriever(folder, config), pairs, how.batch_size, k=how.k)
    if not retrieval["images"]:
        raise RecipeError(f"held_out: no pair can be used; left out: {retrieval['left_out']}")
    return retrieval


def free_memory() -> None:
    """Free what a stage's models held, so that the next stage finds room."""
    gc.collect()
    torch.cuda.empty_cache()  # does nothing where no GPU was used


def _do(job: RoundsJob, number: int, stage: Stage, callbacks: StageCallbacks) -> None:
    folder = stage_folder(job.folder, number, stage)
    if stage == "pretrain":
        source, model = _begin_with(job, number)
        _train(pretraining(job.recipe, folder, source, model), callbacks)
    elif stage == "clean":
        _clean(job, number, callbacks)
    elif stage == "evaluate":
        _evaluate(job, number)
    else:
        start = _checkpoint(job, number, "pretrain")
        captioner = _checkpoint(job, number, "captioner") if stage == "filter" else None
        _train(finetuning(job.recipe, folder, stage, start, captioner), callbacks)


def _train(recipe: TrainingRecipe, callbacks: StageCallbacks) -> None:
    job = train.prepare(recipe)
    with callbacks.training(job.steps) as display:
        train.run(job, display)


def _begin_with(job: RoundsJob, number: int) -> tuple[SourceConfig, dict[str, Any]]:
    """Choose what a round's network learns from beside the human pairs, and what it begins as.

    From scratch it has the words of round 1, so that rounds differ by their data alone.
    """
    web = job.recipe.web
    if number == 1:
        return shards_of(web), {}
    before = str(stage_folder(job.folder, number - 1, "clean"))
    source = SourceConfig(run=before, repeat=web.repeat)
    if job.recipe.next == "continue":
        return source, {"start": str(_checkpoint(job, number - 1, "pretrain"))}
    if job.recipe.pretrain.model.start is not None:
        return source, {}
    return source, {"words": str(stage_folder(job.folder, 1, "pretrain") / "start")}


def _clean(job: RoundsJob, number: int, callbacks: StageCallbacks) -> None:
    models = (_checkpoint(job, number, "captioner"), _checkpoint(job, number, "filter"))
    folder = stage_folder(job.folder, number, "clean")
    prepared = clean.prepare(cleaning(job.recipe, folder, *models))
    with callbacks.cleaning() as watch:
        work = clean.clean_shards(prepared, watch)
        outcome = clean.finish(prepared, work)
    if outcome.pending_here:
        raise EngineError(f"{folder}: {outcome.left}")


def _evaluate(job: RoundsJob, number: int) -> None:
    """Measure the filter's retrieval and the captioner's captions on the held-out pairs."""
    recipe, how = job.recipe, job.recipe.evaluate
    max_tokens, dtype = recipe.clean.score.max_tokens, job.ledger.dtype
    scorer = _checkpoint(job, number, "filter")
    evaluation = {"retrieval": measure(scorer, recipe, how, max_tokens, dtype)}
    captioner = BlipCaptioner.load(
        _checkpoint(job, number, "captioner"),
        decoding=decoding(recipe),
        seed=recipe.seed,
        dtype=dtype,
        device=str(train.device_here(recipe.launch)),
    )
    pairs = read_pairs(recipe.held_out.urls, how.limit)
    evaluation["captions"] = measure_captioner(captioner, pairs, how.batch_size)
    folder = stage_folder(job.folder, number, "evaluate")
    Store(str(folder)).put(EVALUATION, json.dumps(evaluation, indent=2).encode())


def _checkpoint(job: RoundsJob, number: int, stage: Stage) -> Path:
    return train.checkpoint_of(stage_folder(job.folder, number, stage), stage)


def _dtype(folder: Path, recipe: BootstrapRecipe) -> Dtype:
    """Keep the dtype that the rounds were begun with."""
    recorded = read_ledger(folder) if recipe.dtype == "auto" else None
    dtype = recorded["identity"]["dtype"] if recorded else recipe.dtype
    return resolve_dtype(dtype, train.device_here(recipe.launch))
