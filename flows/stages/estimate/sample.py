"""A sample of a cleaning: a few pictures of each part of the input, cleaned as the run will be.

Excerpts of the input's tars become small shards of their own, in random order, and go through the
same engine, with as many workers at once, into a run folder of the sample's own. Each worker's time
from one shard to the next is what the forecast is made of.
"""

import itertools
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from flows.engines.engine import ShardDone, ShardFailed, WorkerReport
from flows.engines.pace import assumed_batch
from flows.recipe import EngineConfig, InputConfig
from flows.run_log.log import RunLog
from flows.stages.clean import CleanJob, RunResult, Work, finish, open_engine, open_job
from flows.stages.logged import ResultListener, told_to
from flows.stages.resolve import Resolved
from pipeline.clean.forecast import LEAST_BLOCKS, Block, cost_of_a_shard
from pipeline.clean.lists import check_skip_list, digest, with_shards
from pipeline.printable import number_of
from shards.errors import UsageError
from shards.inputs.excerpt import Excerpt, Excerpts
from shards.inputs.listing import list_inputs
from shards.inputs.shard import InputShard
from shards.inputs.text import TextSource
from shards.run.commit import Commit, read_commits
from shards.run.exclusion import SKIP_NAME
from shards.store import Store

BATCHES = (1, 1, 4)  # of the small shards, by turns: what a shard costs, and what a picture does
LEAST_SAMPLES, SHARDS_OF_A_WORKER, LEAST_SHARDS = 2_000, 8, 30  # of a plan, if all is taken
_LONGEST_NAME = 60
_UNSAFE = re.compile("[^A-Za-z0-9_-]")
_STARTED = 19  # the field of /proc/PID/stat behind the command's name
LEAVE_S = 0.8  # that an interpreter with torch in it takes to end


class EmptySample(UsageError):  # noqa: N818 - reads as what happened
    """An input in which no sample is found."""


@dataclass(frozen=True, slots=True)
class SampleConfig:
    """How many pictures to take, and when to stop: after so many seconds of work, if any."""

    samples: int
    budget_s: float | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """What became of a sample; `start_s` is all of a command's time but that of its shards."""

    blocks: tuple[Block, ...]
    content_bytes: tuple[float, ...]  # of each shard that it was drawn from
    barren: tuple[InputShard, ...]  # in which no sample was found
    streams: tuple[InputShard, ...]  # gzip files, of which the first samples were taken
    scattered: tuple[InputShard, ...]  # so, too: tars whose members had to be joined
    apart: tuple[InputShard, ...]  # streams in which what belongs together stands apart
    doubtful: tuple[InputShard, ...]  # in which what belongs together may stand apart
    start_s: float
    workers: tuple[WorkerReport, ...]
    peak_memory_bytes: int  # of the largest worker
    result: RunResult

    @property
    def timed(self) -> int:
        """The number of blocks whose time is known."""
        return sum(block.seconds is not None for block in self.blocks)


@dataclass(frozen=True, slots=True)
class _Arrival:
    done: ShardDone
    at_s: float
    seconds: float | None  # since its worker's one before


def take_sample(
    resolved: Resolved,
    shards: Sequence[InputShard],
    folder: str,
    config: SampleConfig,
    watch: ResultListener,
) -> Sample:
    """Clean a sample of the shards into `folder`, which gets `input` and `run`.

    To be called where a command would begin to clean: what has passed since this process began is
    taken for the start of a run. Raises EmptySample where not one sample is found, and ListError
    for a skip-list of another input.
    """
    if SKIP_NAME in resolved.lists:
        check_skip_list(resolved.lists[SKIP_NAME], [shard.shard for shard in shards])
    text = TextSource.parse(resolved.recipe.input.text)
    age_s, excerpts = process_age_s(), Excerpts(shards, config.seed, text)
    drawn = _draw(excerpts, config.samples, assumed_batch(resolved.recipe.engine.batch_size))
    source = _write(drawn, Store(f"{folder}/input"))
    if not source:
        raise EmptySample(_nothing_in(shards))
    content = tuple(excerpts.content_bytes(shards))
    begun_s = time.monotonic()
    job = _open(resolved, folder, source)
    arrivals, work = _clean(job, config.budget_s, watch)
    result = finish(job, work)
    # the list names all of a shard, of which a sample has a few: most are not here to skip
    result.statistics.pop("to_skip", None)
    ended_s = time.monotonic()
    commits = read_commits(job.run)
    blocks = tuple(
        _block(commits[shard], arrivals.get(shard), source[commits[shard].input.url])
        for shard in commits
        if commits[shard].counts.samples_in
    )
    start_s = age_s + LEAVE_S + _around(list(arrivals.values()), blocks, begun_s, ended_s)
    peak = max((c.environment["peak_memory_bytes"] for c in commits.values()), default=0)
    return Sample(
        blocks=blocks,
        content_bytes=content,
        barren=tuple(excerpts.barren),
        streams=tuple(excerpts.streams),
        scattered=tuple(excerpts.scattered),
        apart=tuple(excerpts.apart),
        doubtful=tuple(excerpts.doubtful),
        start_s=start_s,
        workers=work.workers,
        peak_memory_bytes=peak,
        result=result,
    )


def block_sizes(samples: int, batch_size: int) -> Iterator[int]:
    """Divide samples into small shards of one batch or a few, all full but the last."""
    left = samples
    for batches in itertools.cycle(BATCHES):
        if left <= 0:
            return
        size = min(batches * batch_size, left)
        yield size
        left -= size


def enough_samples(engine: EngineConfig) -> int:
    """Return how many samples give each worker some small shards."""
    workers = 1 if engine.actors == "auto" else engine.actors
    shards = max(LEAST_SHARDS, SHARDS_OF_A_WORKER * workers)
    return max(
        LEAST_SAMPLES, shards * assumed_batch(engine.batch_size) * sum(BATCHES) // len(BATCHES)
    )


def process_age_s() -> float:
    """Return the seconds since this process was started."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    started_s = int(fields[_STARTED]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_s


def _draw(excerpts: Excerpts, samples: int, batch_size: int) -> Iterator[Excerpt]:
    """Draw until there are so many samples; some excerpts are cut short by the end of a tar."""
    while samples > 0:
        drawn = 0
        for excerpt in excerpts.draw(list(block_sizes(samples, batch_size))):
            drawn += excerpt.samples
            yield excerpt
        if not drawn:
            return
        samples -= drawn


def _write(excerpts: Iterable[Excerpt], store: Store) -> dict[str, Excerpt]:
    """Write each excerpt as a tar; return them, without their bytes, by URL."""
    written = {}
    for number, excerpt in enumerate(excerpts):
        name = f"{number:04}-{_UNSAFE.sub('_', excerpt.shard.shard)[:_LONGEST_NAME]}.tar"
        store.put(name, excerpt.tar)
        written[store.url(name)] = replace(excerpt, tar=b"")
    return written


def _nothing_in(shards: Sequence[InputShard]) -> str:
    first = shards[0]
    return (
        f"no sample was found in {number_of(len(shards), 'input shard')}; the first is {first.url} "
        f"({first.size_bytes} bytes). Expected pictures, in tars with KEY.jpg and KEY.txt side by "
        "side: look at what is in them (tar -tf)"
    )


def _open(resolved: Resolved, folder: str, source: Mapping[str, Excerpt]) -> CleanJob:
    """Create the run of the sample, in the order in which its shards were drawn.

    `source` says what each of its tars, by URL, was drawn from.
    """
    store = Store(f"{folder}/run")
    text = resolved.recipe.input.text
    recipe = resolved.recipe.model_copy(
        update={"input": InputConfig(urls=(f"{folder}/input",), text=text), "output": store.url()}
    )
    log = RunLog(store, recipe.engine.forward_env)
    with log.hearing():
        inputs = list_inputs(recipe.input.urls)
        lists, identity = dict(resolved.lists), dict(resolved.identity)
        drawn_from = {shard.shard: source[shard.url].shard.shard for shard in inputs}
        if SKIP_NAME in lists:
            lists[SKIP_NAME] = with_shards(lists[SKIP_NAME], drawn_from)
            identity["skip"] = digest(lists[SKIP_NAME])
        candidates = resolved.candidates
        if candidates is not None:
            candidates = candidates.with_shards(drawn_from)
            identity["candidates"] = candidates.identity
        sampled = replace(
            resolved, recipe=recipe, identity=identity, lists=lists, candidates=candidates
        )
        return open_job(sampled, inputs, store, log)


def _clean(
    job: CleanJob, budget_s: float | None, watch: ResultListener
) -> tuple[dict[str, _Arrival], Work]:
    """Clean until all is done, or the budget is spent; note when each shard is done."""
    arrivals: dict[str, _Arrival] = {}
    last_of: dict[str, float] = {}
    failures: list[ShardFailed] = []
    with told_to(job.log), open_engine(job) as engine:
        results = engine.run(job.pending, watch)
        for result in results:
            now = time.monotonic()
            watch.ended(result)
            if isinstance(result, ShardFailed):
                failures.append(result)
            if not isinstance(result, ShardDone):
                continue
            # when it was committed: its result comes a batch later, since a worker goes on before
            # it looks what is written; of few shards the first would take the time of two
            at_s, before = now - result.ago_s, last_of.get(result.worker)
            seconds = None if before is None else max(at_s - before, 0.0)
            arrivals[result.shard.shard] = _Arrival(result, at_s, seconds)
            last_of[result.worker] = at_s
            if budget_s is not None and _is_enough(list(arrivals.values()), budget_s, now):
                break
        return _timed(arrivals), Work(tuple(failures), tuple(engine.reports))


def _timed(arrivals: dict[str, _Arrival]) -> dict[str, _Arrival]:
    """Take the workers' own times of their first shards where there are no others."""
    if any(arrival.seconds is not None for arrival in arrivals.values()):
        return arrivals
    return {name: replace(first, seconds=first.done.seconds) for name, first in arrivals.items()}


def _is_enough(arrivals: Sequence[_Arrival], budget_s: float, now: float) -> bool:
    timed = [arrival for arrival in arrivals if arrival.seconds is not None]
    workers = len(arrivals) - len(timed)
    least = max(LEAST_BLOCKS + 1, 2 * workers)
    return now - arrivals[0].at_s >= budget_s and len(timed) >= least


def _around(
    arrivals: Sequence[_Arrival], blocks: Sequence[Block], begun_s: float, ended_s: float
) -> float:
    """Return what passed before the first worker worked, and after the last shard.

    A first shard takes longer than its like: that is a start's time, too.
    """
    if not arrivals:
        return ended_s - begun_s
    timed = [(b.samples, b.seconds) for b in blocks if b.seconds is not None]
    each = cost_of_a_shard(timed)
    rate = median((seconds - each) / samples for samples, seconds in timed)
    first = arrivals[0]
    first_s = each + rate * first.done.counts.samples_in
    return max(first.at_s - begun_s - first_s, 0.0) + ended_s - arrivals[-1].at_s


def _block(commit: Commit, arrival: _Arrival | None, excerpt: Excerpt) -> Block:
    counts = commit.counts
    return Block(
        samples=counts.samples_in,
        input_bytes=excerpt.size_bytes,
        kept=counts.kept,
        rejected=counts.rejected,
        seconds=arrival.seconds if arrival else None,
        output_bytes={file.table: file.size_bytes for file in commit.files},
        scatter=excerpt.scatter,
    )
