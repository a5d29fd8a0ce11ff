"""Runs of a report's tests: pictures of noise, and scores as each test wants them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards.inputs.listing import list_inputs
from shards.run.run import Run
from shards.run.snapshot import write_snapshot
from shards.store import Store
from tests.support.explained_run import explained, explained_run  # noqa: F401 - fixtures
from tests.support.report_page import THRESHOLD, Row, write_shard


@pytest.fixture
def picture(noise: Any, encode: Any) -> Callable[[int], bytes]:
    return lambda seed: encode(noise(80, 60, seed=seed), "PNG")


@pytest.fixture
def make_run(tmp_path: Path, tar_of: Any, picture: Any) -> Callable[..., Run]:
    """Make a run over shards of samples; each is a row with `texts`, and an `image`."""

    def make(*shards: list[Row], done: int | None = None) -> Run:
        (tmp_path / "web").mkdir()
        for number, samples in enumerate(shards):
            members = [
                (f"s{n:03}.png", row.pop("image", None) or picture(n))
                for n, row in enumerate(samples)
            ]
            (tmp_path / "web" / f"{number:03}.tar").write_bytes(tar_of(members))
        identity = {"judge": {"threshold": THRESHOLD}, "dtype": "fp32", "seed": 7}
        listed = list_inputs([str(tmp_path / "web")])
        run = Run.create(Store(str(tmp_path / "run")), "seed: 7\n", identity, {}, listed)
        for listed_shard, samples in list(zip(run.inputs, shards, strict=True))[:done]:
            write_shard(run, listed_shard.shard, listed_shard.url, samples)
        if done is None:
            write_snapshot(run)
        return run

    return make
