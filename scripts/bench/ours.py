"""capfilt whole, tar to commit, as a recipe with some settings changed."""

import secrets
from collections.abc import Callable

import torch

from flows.engines.engine import ShardDone
from flows.engines.job import Grant
from flows.recipe import Recipe, read_recipe
from flows.stages.clean import prepare
from scripts.bench.inputs import Inputs

Work = Callable[[], int]


def open_run(inputs: Inputs, settings: tuple[str, ...]) -> Work:
    """Begin a run with models loaded and a shard done; what is returned does the others."""
    job = prepare(read_recipe(Recipe, None, {}, settings_of(inputs, *settings)))
    worker = job.spec.open(Grant())
    warm_up, *timed = job.pending
    worker.process(warm_up)

    def work() -> int:
        results = [worker.process(shard) for shard in timed]
        done = [result for result in results if isinstance(result, ShardDone)]
        if len(done) < len(timed):
            raise RuntimeError(f"{len(timed) - len(done)} of {len(timed)} shards failed: {results}")
        return sum(result.counts.samples_in for result in done)

    return work


def open_unpacked(inputs: Inputs) -> Work:
    """Begin a run whose models find no oneDNN to pack their products for as they are loaded."""
    set_flags: Callable[..., tuple[bool, ...]] = torch.backends.mkldnn.set_flags
    enabled, *_ = set_flags(_enabled=False)
    try:
        return open_run(inputs, ())
    finally:
        set_flags(_enabled=enabled)


def settings_of(inputs: Inputs, *changed: str) -> list[str]:
    """Write the settings of a new run, as of `capfilt clean --set`, the changed ones last.

    `{folder}` in these is where the inputs lie.
    """
    folder = inputs.folder
    default = [
        f"input.urls=[{folder / 'input'}]",
        f"output={folder / 'runs' / secrets.token_hex(8)}",
        f"caption.model={folder / 'captioner'}",
        f"score.model={folder / 'filter'}",
        f"caption.min_tokens={inputs.tokens}",
        f"caption.max_tokens={inputs.tokens}",
        f"dtype={inputs.dtype}",
        f"engine.device={inputs.device.type}",
        "engine.kind=local",
    ]
    return [*default, *(setting.format(folder=folder) for setting in changed)]
