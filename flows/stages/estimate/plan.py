"""A plan of a cleaning: what stands in its way, what is left to do, and what that will take."""

import math
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from flows.recipe import Recipe
from flows.stages.clean import looked_at
from flows.stages.estimate.problems import Problem, Problems, where
from flows.stages.estimate.sample import Sample, SampleConfig, take_sample
from flows.stages.logged import ResultListener
from flows.stages.resolve import Models, Resolved, read_captioner, read_scorer, resolve
from pipeline.clean.forecast import (
    LEAST_BLOCKS,
    Interval,
    Whole,
    run_seconds,
    samples_of,
    share_of,
    table_bytes,
    work_seconds,
)
from pipeline.clean.judge import odd_thresholds
from pipeline.printable import number_of, size, tally
from pipeline.report.wording import HOW_TO_JOIN, advice_on_rejected, warning_of_languages
from shards.files.durable import TEMPORARY
from shards.inputs.listing import check_unchanged
from shards.inputs.shard import InputShard
from shards.run.attempt import read_quarantined
from shards.run.commit import read_commits, total_counts
from shards.run.run import NotARun, Run, RunMismatch, as_json, differences
from shards.store import Store, filesystem

WIDE = 0.30  # of a value, on either side
SHARDS_PER_WORKER = 4  # with fewer, the last shards leave workers idle


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be done: of all shards that are this driver's those that are not done yet."""

    resolved: Resolved
    shards: tuple[InputShard, ...]
    pending: tuple[InputShard, ...]
    samples_done: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the shards that are left will take, and what will come of them."""

    images: Interval
    seconds: Interval
    start_seconds: float
    gpu_hours: Interval
    workers: int
    kept: Interval  # share of the samples
    rejected: Interval
    output_bytes: dict[str, Interval]  # by table, and `total`
    peak_memory_bytes: int  # of a worker


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is known before a run; without a task or a sample there is no forecast."""

    problems: tuple[Problem, ...]
    task: Task | None = None
    sample: Sample | None = None
    forecast: Forecast | None = None

    @property
    def ready(self) -> bool:
        """Whether nothing stands in the way."""
        return all(problem.warning for problem in self.problems)


def make_plan(
    recipe: Recipe,
    part: tuple[int, int],
    config: SampleConfig,
    watch: ResultListener,
    looked: Problems | None = None,
) -> Plan:
    """Check a recipe, clean a sample beside its output, which is removed, and forecast the rest.

    `looked`: what was seen at once, if somebody has looked.
    """
    task, problems = check(recipe, part, looked)
    if task is None or problems or not task.pending:
        return Plan(tuple(problems), task)
    with _room_beside(recipe.output) as folder:
        return plan_from(task, folder, config, watch)


def plan_from(task: Task, folder: str, config: SampleConfig, watch: ResultListener) -> Plan:
    """Clean a sample into a folder, which stays, and forecast the whole."""
    sample = take_sample(task.resolved, task.pending, folder, config, watch)
    if not sample.blocks:
        failures = sample.result.failures
        why = failures[0].why if failures else "no shard of it was finished"
        return Plan((Problem("sample", f"nothing of the sample was cleaned: {why}"),), task, sample)
    forecast = forecast_of(task, sample)
    problems = [*doubts(task, sample, forecast), *told_of_width(sample, forecast, config)]
    return Plan(tuple(problems), task, sample, forecast)


def check(
    recipe: Recipe, part: tuple[int, int] = (0, 1), looked: Problems | None = None
) -> tuple[Task | None, list[Problem]]:
    """Check all that can be checked without work, and name every problem, not the first alone.

    What is inside the models is looked at when all else is right.
    """
    seen = looked or Problems(recipe)
    if seen.inputs is None or seen.named:
        return None, seen.named
    captioners = [
        seen.attempt("captioner", section.model, partial(read_captioner, section))
        for section in recipe.captioners
    ]
    scorers = [
        seen.attempt("filter", section.model, partial(read_scorer, section))
        for section in recipe.scorers
    ]
    if seen.named:
        return None, seen.named
    store = Store(recipe.output)
    models = Models(tuple(filter(None, captioners)), tuple(filter(None, scorers)))
    resolved = seen.attempt("recipe", "", partial(resolve, recipe, store, models, seen.lists))
    if resolved is None:
        return None, seen.named
    do = partial(_task, resolved, seen.inputs, store, part)
    return seen.attempt("output", "", do), seen.named


def forecast_of(task: Task, sample: Sample) -> Forecast:
    """Forecast what is left from what a sample took."""
    blocks, workers = sample.blocks, max(len(sample.workers), 1)
    barren = frozenset(sample.barren)  # such a shard costs no more than its commit
    content = [
        0.0 if shard in barren else size_bytes
        for shard, size_bytes in zip(task.pending, sample.content_bytes, strict=True)
    ]
    whole = Whole(content, min(workers, len(content)), sample.start_s)
    seconds = run_seconds(work_seconds(blocks, whole), whole)
    tables = sorted({table for block in blocks for table in block.output_bytes})
    sizes = {table: table_bytes(blocks, whole, table) for table in tables}
    known = partial(_known, sample)
    return Forecast(
        images=known(samples_of(blocks, whole)),
        seconds=seconds,
        start_seconds=sample.start_s,
        gpu_hours=seconds.times(_gpus(task, sample) / 3600),
        workers=whole.workers,
        kept=known(share_of(blocks, whole, lambda block: block.kept)),
        rejected=known(share_of(blocks, whole, lambda block: block.rejected)),
        output_bytes=sizes | {"total": _sum(sizes.values())},
        peak_memory_bytes=sample.peak_memory_bytes,
    )


def doubts(task: Task, sample: Sample, forecast: Forecast) -> Iterator[Problem]:
    """Name what the sample, and the recipe itself, say against the run."""
    recipe = task.resolved.recipe
    for doubt in odd_thresholds(recipe.judge.threshold):
        yield Problem("judge.threshold", doubt, warning=True)
    free, total = _free_bytes(recipe.output), forecast.output_bytes["total"]
    wanted = total.value if math.isinf(total.high) else total.high
    if free is not None and wanted > free:
        yield Problem(
            "disk",
            f"{recipe.output} may need {size(int(wanted))}, and {size(free)} are free there. Free "
            "some space, choose another output, or write tables only (--set write.clean=none)",
        )
    counted, limit = sample.result.statistics, recipe.limits.rejected
    samples, faults = looked_at(counted["samples_in"], counted["rejected_by_reason"])
    if (share := sum(faults.values()) / max(samples, 1)) > limit:
        yield Problem(
            "limits.rejected",
            f"{share:.0%} of the sample are rejected, the limit is {limit:.0%}; by reason: "
            f"{tally(faults)}. {advice_on_rejected(is_apart=is_torn(sample))}; or go on all the "
            "same: --set limits.rejected=1",
        )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    by_host = {worker.host for worker in sample.workers}
    if len(by_host) == 1 and forecast.peak_memory_bytes * forecast.workers > memory:
        yield Problem(
            "memory",
            f"{number_of(forecast.workers, 'worker')} of {size(forecast.peak_memory_bytes)} each "
            f"need more than the {size(memory)} of this machine. Set engine.actors to fewer",
        )
    if sample.barren:
        yield Problem(
            "input",
            f"no sample was found in {_named(sample.barren)}. Such a shard is damaged, no tar, or "
            "compressed otherwise than by gzip, and gives no pictures. Write it again, or leave it "
            "out",
            warning=True,
        )
    yield from told_of_order(sample)
    yield from told_of_texts(sample)
    if forecast.workers > 1 and len(task.pending) < SHARDS_PER_WORKER * len(sample.workers):
        yield Problem(
            "shards",
            f"{number_of(len(task.pending), 'shard')} for {len(sample.workers)} workers: some will "
            f"be idle towards the end. {SHARDS_PER_WORKER} for each, or more, keep all at work: "
            "write smaller shards",
            warning=True,
        )


def told_of_width(sample: Sample, forecast: Forecast, config: SampleConfig) -> Iterator[Problem]:
    """Tell of an interval that says little, and by which options it says more."""
    if forecast.seconds.half_width > WIDE or sample.timed < LEAST_BLOCKS:
        width = forecast.seconds.half_width
        options = "--n" if config.budget_s is None else "--n, --budget"
        doubt = "wide" if width > WIDE else "unsure"
        yield Problem(
            "sample",
            f"the interval of the time is {'not known' if math.isinf(width) else doubt}, from "
            f"{number_of(sample.timed, 'small shard')} by "
            f"{number_of(len(sample.workers), 'worker')}, each one's first, slower one left out. A "
            f"larger sample makes it surer: {options}",
            warning=True,
        )


def told_of_order(sample: Sample) -> Iterator[Problem]:
    """Tell of shards whose samples are no fair sample, or that cannot be counted."""
    if sample.apart:
        yield Problem(
            "input",
            f"the members of a sample stand apart in {_named(sample.apart)}, which cannot be "
            "sought in: each becomes a row of its own, not_adjacent, image_missing or without a "
            f"text, and how many is not known. To join them, {HOW_TO_JOIN}",
            warning=True,
        )
    for shards, why in (
        ([shard for shard in sample.streams if shard not in sample.apart], "packed by gzip"),
        (sample.scattered, "a tar whose samples have members that stand apart"),
    ):
        if shards:
            yield Problem(
                "input",
                f"{_named(shards)}: {why}. Samples were taken from the beginning of such a shard, "
                "so numbers of samples and times are rough",
                warning=True,
            )
    if sample.doubtful:
        yield Problem(
            "input",
            f"most of the samples that were tried of {_named(sample.doubtful)} lack a picture or a "
            "text. If the members of a sample stand apart there, samples are counted twice or "
            f"more: {HOW_TO_JOIN}",
            warning=True,
        )


def told_of_texts(sample: Sample) -> Iterator[Problem]:
    """Tell if texts may stand elsewhere, or in a language that the filter does not know."""
    statistics = sample.result.statistics
    if statistics["lacks_all_texts"]:
        fields = ", ".join(statistics["sidecar_fields"])
        yield Problem(
            "input.text",
            "not one of the samples has a web text there"
            + (f"; their sidecars have {fields} (json:FIELD)" if fields else "")
            + ". Where there are none by intention: --set input.text=none",
            warning=True,
        )
    if foreign := warning_of_languages(statistics):
        yield Problem("screen.languages", foreign, warning=True)


def is_torn(sample: Sample) -> bool:
    """Whether members of one sample are, or may be, rows of their own."""
    return bool(sample.apart or sample.doubtful)


def _known(sample: Sample, interval: Interval) -> Interval:
    """Return an interval of a number of samples: chance is not all, where they are torn."""
    return Interval(interval.value, 0.0, math.inf) if is_torn(sample) else interval


def _named(shards: Sequence[InputShard]) -> str:
    """Write how many shards there are, and the first."""
    first = f"the first: {shards[0].url}" if len(shards) > 1 else shards[0].url
    return f"{number_of(len(shards), 'shard')} ({first})"


def _task(
    resolved: Resolved, inputs: Sequence[InputShard], store: Store, part: tuple[int, int]
) -> Task:
    """See what is done already, if the output holds this run."""
    mine = tuple(sorted(inputs, key=lambda shard: shard.shard)[part[0] :: part[1]])
    if not store.exists("run.json"):
        strange = [name for name in store.list() if not name.startswith("commits/")]
        if strange:
            raise NotARun(
                f"{store.url()} is not empty and holds no run (no run.json; found {strange[0]}); "
                "give an empty or new folder as output"
            )
        return Task(resolved, mine, mine, 0)
    run = Run.read(store)
    if differing := "; ".join(differences(run.identity, as_json(resolved.identity))):
        raise RunMismatch(
            f"{store.url()} holds a run of another recipe; differing (recorded -> given): "
            f"{differing}; give the recorded values, or another output folder"
        )
    commits = read_commits(run)
    check_unchanged(run.inputs, inputs, {name: c.input.sha256 for name, c in commits.items()})
    done = commits.keys() | read_quarantined(run).keys()
    pending = tuple(shard for shard in mine if shard.shard not in done)
    counted = total_counts(commit.counts for commit in commits.values())
    return Task(resolved, mine, pending, counted.samples_in)


def _gpus(task: Task, sample: Sample) -> float:
    """Count the GPUs that all workers hold."""
    each = task.resolved.recipe.engine.gpus_per_actor
    used = sum(worker.device != "cpu" for worker in sample.workers)
    return used * (1.0 if each == "auto" else each)


def _sum(parts: Iterable[Interval]) -> Interval:
    """Add up parts that are large and small together."""
    ends = [(part.value, part.low, part.high) for part in parts]
    return Interval(*map(math.fsum, zip(*ends, strict=True)))


def _free_bytes(output: str) -> int | None:
    there = where(output)
    return None if there is None else shutil.disk_usage(there).free


@contextmanager
def _room_beside(output: str) -> Iterator[str]:
    """Lend a folder on the output's own disk or store, where all machines see it."""
    parent = Store(output).url().rpartition("/")[0]
    store = Store(f"{parent}/{TEMPORARY}plan-{secrets.token_hex(8)}")
    try:
        yield store.url()
    finally:
        path = filesystem(store.url())[1]
        if store.fs.exists(path):
            store.fs.rm(path, recursive=True)
