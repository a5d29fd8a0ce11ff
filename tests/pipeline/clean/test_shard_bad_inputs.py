"""All bad inputs in one run, with real tiny models: each comes out as the manifest says."""

import json
from pathlib import Path
from typing import Any

import pytest
import webdataset

from pipeline.clean.config import CleanConfig
from pipeline.clean.judge import JudgeConfig
from shards.inputs.shard import InputShard
from shards.run.commit import read_commit
from shards.run.run import Run
from shards.run.verify.run import verify_run

pytestmark = pytest.mark.slow

Row = dict[str, Any]


@pytest.fixture(scope="module")
def bad_run(
    tmp_path_factory: Any,
    bad_inputs: Path,
    config: CleanConfig,
    captioner: Any,
    scorer: Any,
    make_bench: Any,
) -> Run:
    folder, web = tmp_path_factory.mktemp("bad"), tmp_path_factory.mktemp("web")
    for file in bad_inputs.rglob(
        "*.*"
    ):  # one of two tars that differ by their ending alone is apart
        (web / file.suffix[1:] / file.name).parent.mkdir(exist_ok=True)
        (web / file.suffix[1:] / file.name).symlink_to(file)
    bench = make_bench(folder, config, captioner, scorer)
    every = {"web": 0.0, "synthetic": 0.0}  # so that no key hangs on what a random filter says
    run = bench.clean(web, judge=JudgeConfig(threshold=every))
    assert [path.name for path in folder.iterdir()] == ["run1"]
    return run


def shard_of(run: Run, file: str) -> InputShard:
    return next(one for one in run.inputs if Path(one.url).name == file)


def test_bad_inputs_all_commit(bad_run: Run, cases: list[Row]) -> None:
    checked = verify_run(bad_run)
    assert (checked.problems, checked.pending) == ((), ())
    assert checked.committed == len(bad_run.inputs) == len({case["file"] for case in cases})


def test_bad_inputs_come_out_as_the_manifest_says(
    bad_run: Run, cases: list[Row], make_bench: Any
) -> None:
    wrong = []
    for case in cases:
        shard = shard_of(bad_run, case["file"]).shard
        done, samples = read_commit(bad_run, shard), make_bench.rows(bad_run, "samples", shard)
        assert done is not None
        texts = {row["index"] for row in make_bench.rows(bad_run, "texts", shard)}
        ok = {row["key"]: row["index"] in texts for row in samples if row["status"] == "ok"}
        causes = {row["reason"] for row in samples} | {row["text_reason"] for row in samples}
        causes |= {f"shard_{done.state.state.value}".replace("not_a_tar", "not_tar")}
        notes = {note for row in samples for note in row["notes"]}
        if case["policy"]:
            continue  # decided in screening, and asserted with it
        fine = all(ok.get(key) for key in case["good_keys"])
        if case["expected"] in ("rejected", "shard_rejected", "shard_partial"):
            fine &= case["reason"] in causes
        if case["expected"] == "shard_rejected":
            fine &= samples == [] and done.state.damaged
        if case["expected"] == "shard_partial":
            fine &= done.state.damaged
        if case["expected"] == "kept":
            fine &= len(ok) == len(samples) and case["reason"] in {None, *notes}
        if not fine:
            wrong.append((case["case"], ok, causes, notes, done.state))
    assert not wrong


def test_nothing_is_written_outside(bad_run: Run, cases: list[Row]) -> None:
    folder = Path(bad_run.store.url())
    for case in cases:
        if case["case"] in ("member_dotdot", "member_absolute"):
            target = (folder / "data" / "clean" / case["key"]).resolve()
            found = [path for path in target.parent.glob(f"{target.name}*") if path.is_file()]
            assert found == []
    assert not [path for path in folder.rglob("*") if path.is_symlink() or "escape" in path.name]


def test_exotic_keys_are_read_back(bad_run: Run, cases: list[Row], make_bench: Any) -> None:
    """webdataset cuts names at the first dot; no key may hide another, or a member be unsafe."""
    seen = 0
    for case in cases:
        if not case["case"].startswith("key_"):
            continue
        shard = shard_of(bad_run, case["file"]).shard
        samples = make_bench.rows(bad_run, "samples", shard)
        kept = {row["index"] for row in make_bench.rows(bad_run, "decisions", shard) if row["keep"]}
        done = read_commit(bad_run, shard)
        assert done is not None
        file = done.file("clean")
        if file is None:
            assert not kept
            continue
        names = list(make_bench.clean_members(bad_run, shard))
        assert all(name.isascii() and ".." not in name and name.count("/") == 1 for name in names)
        assert all(len(name.encode()) < 255 + len(shard) for name in names)
        url = bad_run.store.url(file.name)
        dataset = webdataset.WebDataset(url, shardshuffle=False, empty_check=False)
        read = [json.loads(sample["json"])["key"] for sample in dataset if "txt" in sample]
        assert read == [row["key"] for row in samples if row["index"] in kept]
        seen += case["key"] in read
    assert seen >= 2
