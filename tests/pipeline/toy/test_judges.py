"""The toy world's judges, against a slow loop over its own samples."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.clean.judge import JudgeConfig
from pipeline.evaluate import LabelledPair, read_pairs
from pipeline.toy.judges import caption_is_right, let_through, pair_is_right
from pipeline.toy.world import ToyWorldConfig, noisy_flags, toy_sample, write_toy_world
from shards.run.snapshot import write_snapshot
from tests.support.bench import Bench

WORLD = ToyWorldConfig(samples=16, samples_per_shard=16, noise=0.5, image_px=64)


def test_shares_are_those_of_the_world(bench: Bench, tmp_path: Path) -> None:
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
    shares = let_through(run)
    assert 4 <= len(kept) <= 12
    assert shares["web"] == {
        "true": 0.5,
        "kept": pytest.approx(len(kept) / 16),
        "true_of_kept": pytest.approx(sum(kept) / len(kept)),
    }
    assert shares["synthetic"]["kept"] == shares["synthetic"]["true_of_kept"] == 0


def test_captions_and_pairs_are_judged_by_their_sidecars(tmp_path: Path) -> None:
    write_toy_world(tmp_path, WORLD)
    pairs = list(read_pairs([str(tmp_path)]))
    assert [pair_is_right(pair) for pair in pairs] == [not flag for flag in noisy_flags(WORLD)]
    for pair in pairs:
        assert caption_is_right(pair.texts[0], pair.meta) is pair_is_right(pair)
        assert caption_is_right(pair.meta["toy"]["true_caption"], pair.meta) is True


@pytest.mark.parametrize(
    "meta", [{}, {"toy": 3}, {"toy": {"scene": "?"}}, {"toy": {"is_noisy": "no"}}]
)
def test_nothing_is_said_of_what_comes_from_elsewhere(meta: dict[str, Any]) -> None:
    assert caption_is_right("a red ring", meta) is None
    assert pair_is_right(LabelledPair("k", b"", (), meta)) is None
