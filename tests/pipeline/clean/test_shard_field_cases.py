"""All field cases in one run, with real tiny models: each comes out as the manifest says."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.clean.config import CleanConfig
from pipeline.clean.judge import JudgeConfig
from shards.run.commit import read_commit
from shards.run.run import Run
from shards.run.verify.run import verify_run

Rows = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def folder(data_dir: Path) -> Path:
    folder = data_dir / "field_cases"
    if not folder.is_dir():
        pytest.skip(f"no field cases at {folder}")
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, str]:
    """What should come of each tar, in the manifest's words."""
    cases = json.loads((folder / "manifest.json").read_bytes())
    return {
        case["file"].removesuffix(".tar"): case["expected"]
        for case in cases
        if case["command"] == "clean"
    }


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: Any,
    folder: Path,
    config: CleanConfig,
    captioner: Any,
    scorer: Any,
    make_bench: Any,
) -> Run:
    bench = make_bench(tmp_path_factory.mktemp("field"), config, captioner, scorer)
    every = {"web": 0.0, "synthetic": 0.0}  # so that nothing hangs on what a random filter says
    done: Run = bench.clean(folder / "*.tar", judge=JudgeConfig(threshold=every))
    return done


def rows(run: Run, shard: str, make_bench: Any) -> Rows:
    samples = make_bench.rows(run, "samples", shard)
    assert len({row["key"] for row in samples}) == len(samples)
    return {row["key"]: row for row in samples}


def test_every_shard_is_committed_whole(run: Run, expected: dict[str, str]) -> None:
    assert verify_run(run).problems == ()
    assert {shard.shard for shard in run.inputs} == set(expected)
    states = {shard: commit.state for shard in expected if (commit := read_commit(run, shard))}
    assert {shard for shard, state in states.items() if not state.damaged} == set(expected)


def test_odd_pictures_come_out_as_the_manifest_says(
    run: Run, expected: dict[str, str], make_bench: Any
) -> None:
    wrong, odd = [], {shard: says for shard, says in expected.items() if says.startswith("odd: ")}
    assert len(odd) >= 10
    for shard, says in odd.items():
        found = rows(run, shard, make_bench)
        status, reason = found["odd"]["status"], found["odd"]["reason"]
        wanted = re.match(r"odd: (ok|rejected)(?:, (\w+))?(?=$|[ ;,])", says)
        assert wanted is not None, says
        neighbours = {key: row["status"] for key, row in found.items() if key != "odd"}
        fine = status == wanted[1] and (status == "ok" or reason == wanted[2])
        fine &= neighbours == {"good1": "ok", "good2": "ok"}
        fine &= "note" not in says or found["odd"]["notes"] != []
        wrong += [] if fine else [(shard, says, found["odd"], neighbours)]
    assert wrong == []


@pytest.mark.parametrize(
    ("shard", "texts"),
    [
        ("tar_multi_ext_sorted", {"000": "a red square", "001": "a green square"}),
        ("tar_gnu_sparse_label", {"a": "a red square", "b": "a red square"}),
        ("img_only_jfif_names", {"a": None, "b": None}),
    ],
)
def test_all_samples_are_there_with_their_texts(
    run: Run, shard: str, texts: dict[str, str | None], make_bench: Any
) -> None:
    found = rows(run, shard, make_bench)
    assert {row["status"] for row in found.values()} == {"ok"}
    assert {key: row["web_text"] for key, row in found.items()} == texts
