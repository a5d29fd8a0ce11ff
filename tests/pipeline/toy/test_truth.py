"""What a cleaning let through, against a slow loop over the toy world's own samples."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.clean.judge import JudgeConfig
from pipeline.toy.truth import let_through
from pipeline.toy.world import ToyWorldConfig, noisy_flags, toy_sample, write_toy_world
from shards.run.snapshot import write_snapshot

WORLD = ToyWorldConfig(samples=16, samples_per_shard=16, noise=0.5, image_px=64)


def test_shares_are_those_of_the_world(bench: Any, tmp_path: Path) -> None:
    (path,) = write_toy_world(tmp_path / "toy", WORLD)
    first = bench.clean(path)
    middle = np.median([row["itm"] for row in bench.rows(first, "texts") if not row["text_no"]])
    run = bench.clean(path, judge=JudgeConfig(threshold={"web": float(middle), "synthetic": 2.0}))
    write_snapshot(run)
    flags = noisy_flags(WORLD)
    is_true = {toy_sample(n, bool(flag), WORLD).text: not flag for n, flag in enumerate(flags)}
    texts, decisions = bench.rows(run, "texts"), bench.rows(run, "decisions")
    keep = {(row["index"], row["text_no"]): row["keep"] for row in decisions}
    kept = [is_true[row["text"]] for row in texts if keep[row["index"], row["text_no"]]]
    found = let_through(run)
    assert 4 <= len(kept) <= 12
    assert found["web"] == {
        "true": 0.5,
        "kept": pytest.approx(len(kept) / 16),
        "true_of_kept": pytest.approx(sum(kept) / len(kept)),
    }
    assert found["synthetic"]["kept"] == found["synthetic"]["true_of_kept"] == 0
