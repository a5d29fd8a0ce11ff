"""The occasion of a scoring: another model scores the texts of a finished run, shard by shard.

What is committed under `scores/NAME/` is the only record of what is done: the same command goes on.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from flows.engines.address import resolve_kind
from flows.engines.engine import ShardDone, ShardFailed, ShardResult, is_shard_fault
from flows.engines.job import Grant
from flows.engines.pace import Pace
from flows.engines.start_checks import Demands
from flows.extras import versions_of
from flows.recipe import EngineConfig, RecipeSection, as_recipe_errors, read_recipe, read_yaml
from models.blip.config import Dtype
from models.devices import (
    check_dtype,
    choose_device,
    describe_device,
    keep_freed_memory,
    name_device,
)
from models.scorers.config import ScorerConfig
from models.scorers.opening import as_section, check_scorer, open_scorer
from pipeline.clean.line.attempt import AttemptLost
from pipeline.views.score import ShardScorer
from shards.files.home import expand_home
from shards.inputs.shard import InputShard
from shards.run.attempt import Ending, end_attempts_of
from shards.run.commit import read_commit, read_commits
from shards.run.run import Run
from shards.run.scoring.score_set import (
    ScoreSet,
    check_score_name,
    create_score_set,
    open_score_set,
)

WORKER_BYTES = 1_500_000_000  # of a worker beside its weights
LIBRARIES = ("torch", "transformers")


class ScoreRecipe(RecipeSection):
    """A scorer of texts that are there."""

    scorer: ScorerConfig
    dtype: Dtype = Field("fp32", description="fp32, bf16, fp16 or int8")


def read_scorer(name: str) -> ScoreRecipe:
    """Read what `--scorer` names: a recipe, or a folder or hub id of whatever kind it is."""
    path = Path(expand_home(name)) if name.endswith((".yaml", ".yml")) else None
    values = dict(read_yaml(path)) if path else as_section(expand_home(name))
    given: dict[str, Any] = {"dtype": values.pop("dtype", None), "scorer": values}
    values.setdefault("name", "scorer")  # its scores have the name of their set
    return read_recipe(ScoreRecipe, None, given, where=name)


@dataclass(frozen=True, slots=True)
class ScoreSpec:
    """All that a worker needs to know, small enough to send anywhere; the model is pinned."""

    run_url: str
    name: str
    scorer: ScorerConfig
    dtype: Dtype
    pace: Pace
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def open(self, grant: Grant) -> "ScoreWorker":
        """Load the model on the machine where it works."""
        return ScoreWorker(self, grant)


class ScoreWorker:
    """Scores shards of one run; `counts` may be read from another thread meanwhile."""

    def __init__(self, spec: ScoreSpec, grant: Grant) -> None:
        self.counts = (0, 0)  # samples and bytes done of the shard under way
        self.samples = 0  # done since it was opened, in every attempt
        self._name = grant.worker
        device = choose_device(spec.device, granted=grant.gpus > 0)
        self.device = name_device(device)
        check_dtype(spec.dtype, device)
        keep_freed_memory()
        scorer = open_scorer(spec.scorer, dtype=spec.dtype, device=device)
        scores = open_score_set(Run.open(spec.run_url), spec.name)
        hardware = {**describe_device(device), "dtype": spec.dtype}
        pace = spec.pace.on(device, grant.cpus)
        self._scorer = ShardScorer(scores, scorer, pace, hardware)

    def expect(self, shard: InputShard | None) -> None:
        """Begin nothing ahead: the texts of a shard are read when it is its turn."""

    def process(self, shard: InputShard) -> ShardResult:
        """Score one shard and commit it.

        Raises AttemptLost, and what is no single shard's fault.
        """
        try:
            done = self._scorer.score(shard, self._note, self._name)
        except Exception as error:
            if not is_shard_fault(error):
                raise
            return ShardFailed(shard, str(error))
        finally:
            self.counts = (0, 0)
        return ShardDone(shard, done.counts, done.state.damaged, self._name or "")

    def _note(self, samples: int, size_bytes: int) -> None:
        self.samples += samples - self.counts[0]
        self.counts = (samples, size_bytes)


@dataclass(frozen=True, slots=True)
class ScoreRecords:
    """What the driver of a scoring writes down: the ends of attempts that nobody else can."""

    scores: ScoreSet

    def ended(self, shard: InputShard, worker: str, ending: Ending, why: str = "") -> None:
        """Record how a worker's attempt on a shard ended."""
        end_attempts_of(self.scores.record, shard.shard, worker, ending, why)

    def look_up(self, shard: InputShard) -> ShardResult | None:
        """Return what a shard came to, if its scores are committed by now."""
        done = read_commit(self.scores.record, shard.shard)
        return None if done is None else ShardDone(shard, done.counts, done.state.damaged)

    def failed(self, shard: InputShard, why: str) -> ShardResult:
        """Make the result of a shard that stays pending."""
        return ShardFailed(shard, why)

    def samples(self, result: ShardResult) -> int:
        """Count the samples of a shard that is done."""
        return result.counts.samples_in if isinstance(result, ShardDone) else 0


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """A prepared scoring: what is to be done, of how much."""

    scores: ScoreSet
    spec: ScoreSpec
    engine: EngineConfig
    pending: tuple[InputShard, ...]
    samples: int  # of the pending shards
    weights_bytes: int


@dataclass(frozen=True, slots=True)
class Scored:
    """What a scoring came to."""

    scores: ScoreSet
    done: int
    of: int
    failures: tuple[ShardFailed, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 complete, 1 shards left pending."""
        return 0 if self.done == self.of else 1


def prepare(
    run: Run, name: str, scorer: ScorerConfig, engine: EngineConfig, dtype: Dtype = "fp32"
) -> ScoreJob:
    """Read the model, open or begin the set of scores, and see what is left to do.

    Raises ScoresError where the name holds other scores, and RecipeError, CheckpointError.
    """
    check_score_name(name)  # before a model is fetched
    kind = resolve_kind(engine.kind, engine.address)
    with as_recipe_errors():
        known = check_scorer(scorer)
    identity = {"kind": known.config.kind, **known.config.identity(), "dtype": dtype}
    identity = {key: value for key, value in identity.items() if key != "name"}
    about = {"kind": "scores", "versions": versions_of("capfilt", *LIBRARIES)}
    about |= {"scorer": known.config.model_dump(mode="json", include={"model", "revision"})}
    scores = create_score_set(run, name, known.scores, identity | {"digest": known.digest}, about)
    facts, done = read_commits(run), read_commits(scores.record)
    pending = tuple(
        shard for shard in run.inputs if shard.shard in facts and shard.shard not in done
    )
    pace = Pace(engine.batch_size, engine.decode_threads, engine.stall_timeout_s)
    return ScoreJob(
        scores,
        ScoreSpec(run.store.url(), name, known.config, dtype, pace, engine.device),
        engine.model_copy(update={"kind": kind}),
        pending,
        sum(facts[shard.shard].counts.samples_in for shard in pending),
        4 * known.parameters,
    )


def score_shards(job: ScoreJob, tell: Callable[[int], None]) -> Scored:
    """Score all pending shards; `tell` hears of more samples as their shards are done."""
    failures = []
    for result in _results(job) if job.pending else ():
        if isinstance(result, ShardFailed):
            failures.append(result)
        elif isinstance(result, ShardDone):
            tell(result.counts.samples_in)
    done = read_commits(job.scores.record)
    facts = read_commits(job.scores.run)
    return Scored(job.scores, len(done.keys() & facts.keys()), len(facts), tuple(failures))


class _Silent:
    def under_way(self, samples: int, size_bytes: int) -> None:
        """Show nothing of what is begun."""


def _results(job: ScoreJob) -> Iterator[ShardResult]:
    if job.engine.kind == "local":
        yield from _here(job.spec, job.pending)
        return
    from flows.engines.ray.pool import ray_pool  # seconds to import

    demands = Demands(
        run_url=job.scores.record.store.url(),
        inputs=tuple(shard.url for shard in job.pending),
        worker_bytes=WORKER_BYTES + 2 * job.weights_bytes,
    )
    with ray_pool(job.spec, ScoreRecords(job.scores), demands, job.engine) as pool:
        yield from pool.run(job.pending, _Silent())


def _here(spec: ScoreSpec, shards: Sequence[InputShard]) -> Iterator[ShardResult]:
    worker = spec.open(Grant())
    for shard in shards:
        try:
            yield worker.process(shard)
        except AttemptLost:  # once more; what is lost twice is another's to find out
            yield worker.process(shard)


def as_record(scored: Scored) -> dict[str, Any]:
    """Return what a scoring came to, for machines."""
    return {
        "run": scored.scores.run.store.url(),
        "scores": list(scored.scores.qualified),
        "shards": {"scored": scored.done, "of": scored.of},
        "failures": [{"shard": f.shard.shard, "why": f.why} for f in scored.failures],
    }
