"""One folder, one recipe, one list of inputs; a creation cut short is finished by the next."""

import dataclasses
import json
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.errors import DamagedFile
from shards.inputs.listing import InputMismatch
from shards.inputs.shard import InputShard
from shards.run.record import canonical_json
from shards.run.run import NotARun, Run, RunMismatch, fingerprint
from shards.store import Store
from tests.shards.conftest import MakeRun
from tests.support.changed_run import record_of

INPUTS = [InputShard("/web/a.tar", "a", 10, mtime=1.5), InputShard("/web/b.tar", "b", 20, "e")]
IDENTITY = {"seed": 0, "judge": {"threshold": {"web": 0.5}}, "sizes": (224, 384)}


def create(url: str, identity: Any = None, inputs: Any = None) -> Run:
    return Run.create(
        Store(url), "seed: 0\n", identity or IDENTITY, {"host": "h"}, inputs or INPUTS
    )


def test_created_then_opened(any_url: str) -> None:
    run = create(any_url)
    assert run.store.list() == ["input.parquet", "recipe.yaml", "run.json"]
    assert run.shards == ["a", "b"]
    assert list(run.inputs) == INPUTS
    assert run.fingerprint == fingerprint(IDENTITY)
    before = {name: run.store.read(name) for name in run.store.list()}
    for again in (Run.open(any_url), create(any_url)):
        assert (again.identity, again.inputs) == (run.identity, run.inputs)
        assert again.fingerprint == run.fingerprint
        assert again.about == {"host": "h"}
    assert {name: run.store.read(name) for name in run.store.list()} == before
    assert pickle.loads(pickle.dumps(run)).shards == run.shards


def test_another_recipe_is_refused_with_the_difference(any_url: str) -> None:
    create(any_url)
    other = {"seed": 1, "judge": {"threshold": {"web": 0.5, "synthetic": 0.4}}, "sizes": [224, 384]}
    with pytest.raises(RunMismatch) as caught:
        create(any_url, other)
    text = str(caught.value)
    assert "seed: 0 -> 1" in text
    assert "judge.threshold.synthetic: (none) -> 0.4" in text
    assert "web:" not in text
    assert "sizes" not in text
    assert "another output folder" in text
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), ValueError)


def test_a_run_of_another_version_is_told_as_one(any_url: str) -> None:
    """Nobody can give another output version as a setting."""
    create(any_url, {"seed": 0, "output_version": 1})
    with pytest.raises(RunMismatch, match="another version of capfilt") as caught:
        create(any_url, {"seed": 0, "output_version": 2})
    assert "output_version: 1 -> 2" in str(caught.value)
    assert "give the recorded values" not in str(caught.value)
    assert "another output folder" in str(caught.value)


def test_another_list_is_refused(any_url: str) -> None:
    create(any_url)
    with pytest.raises(InputMismatch, match="no longer there: b"):
        create(any_url, inputs=INPUTS[:1])


@pytest.mark.parametrize("written", [["run.json"], ["run.json", "input.parquet"]])
def test_a_creation_cut_short_is_finished(any_url: str, written: list[str]) -> None:
    run = create(any_url)
    for name in set(run.store.list()) - set(written):
        run.store.delete(name)
    if "input.parquet" not in written:
        with pytest.raises(NotARun, match=r"input\.parquet"):
            Run.open(any_url)
        with pytest.raises(InputMismatch, match="another list"):
            create(any_url, inputs=INPUTS[:1])
    assert create(any_url).shards == ["a", "b"]
    assert run.store.list() == ["input.parquet", "recipe.yaml", "run.json"]


def test_what_is_no_run(any_url: str) -> None:
    with pytest.raises(NotARun, match="no run"):
        Run.open(any_url)
    store = Store(any_url)
    store.put("holiday.jpg", b"x")
    with pytest.raises(NotARun, match=r"not empty.*holiday\.jpg"):
        create(any_url)
    assert store.list() == ["holiday.jpg"]
    store.put("run.json", b'{"run_version": 9}')
    with pytest.raises(NotARun, match="newer"):
        Run.open(any_url)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (b"{", "expected a JSON object, found Expecting property name"),
        (b"", "found Expecting value"),
        (b"\0" * 900, "expected a JSON object"),
        (b"[" * 200_000, "found brackets too deep to be read"),
        (b"[]", "found list"),
        (b'{"run_version": "1"}', "expected a number as run_version, found 1"),
        (b'{"run_version": 1}', "expected fingerprint of type str, found None"),
        (b'{"run_version": 1, "seal": "0"}', "expected content with the seal 0"),
        (b'{"run_version": NaN}', "Out of range"),
    ],
)
def test_a_damaged_record_is_said(any_url: str, broken: bytes, message: str) -> None:
    create(any_url).store.put("run.json", broken)
    with pytest.raises(DamagedFile, match=rf"run\.json is damaged: .*{message}.* --repair`"):
        Run.open(any_url)


def test_a_record_of_the_version_before_is_read(any_url: str) -> None:
    run = create(any_url)
    older = record_of(run, "run.json")
    del older["recipe_yaml"]
    run.store.put("run.json", json.dumps(older).encode())
    assert create(any_url).identity == run.identity
    run.store.put("recipe.yaml", b"\0" * 20)
    create(any_url)
    assert run.store.read("recipe.yaml") == b"seed: 0\n"


def test_what_was_set_aside_is_written_again(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url)
    arguments = (run.identity, run.about, run.inputs)
    for name in ("run.json", "input.parquet", "recipe.yaml"):
        run.store.delete(name)
        with pytest.raises((NotARun, RunMismatch), match=r"not empty|another recipe"):
            Run.create(run.store, "seed: 1\n", {"seed": 1}, {}, run.inputs)
        again = Run.create(run.store, "seed: 0\n", *arguments)
        assert (again.fingerprint, again.inputs) == (run.fingerprint, run.inputs)
        assert again.store.read("recipe.yaml") == b"seed: 0\n"


def test_leftovers_of_a_killed_creation_do_not_stand_in_the_way(tmp_path: Path) -> None:
    (tmp_path / ".tmp-0123").write_bytes(b"half")
    assert create(str(tmp_path)).shards == ["a", "b"]


def begin(url: str, seed: int, barrier: Any, results: Any) -> None:
    barrier.wait(60)
    try:
        create(url, {"seed": seed})
        results.put((seed, "created"))
    except RunMismatch:
        results.put((seed, "refused"))


def test_two_recipes_at_once_make_one_run(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for turn in range(10):
        barrier, results = context.Barrier(2), context.Queue()
        url = str(tmp_path / str(turn))
        racers = [
            context.Process(target=begin, args=(url, seed, barrier, results)) for seed in (0, 1)
        ]
        for racer in racers:
            racer.start()
        ended = dict(results.get(timeout=60) for _ in racers)
        for racer in racers:
            racer.join(60)
        assert sorted(ended.values()) == ["created", "refused"]
        winner = next(seed for seed, what in ended.items() if what == "created")
        assert Run.open(url).identity == {"seed": winner}


def test_fingerprints() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": (1, 2), "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 1.5})
    assert canonical_json({"b": "é", "a": None}) == '{"a":null,"b":"é"}'.encode()
    with pytest.raises(ValueError, match="Out of range"):
        fingerprint({"a": float("nan")})


def test_a_torn_list_of_inputs_is_said(any_url: str, make_run: MakeRun) -> None:
    run = make_run(any_url, committed=False)
    run.store.put("input.parquet", run.store.read("input.parquet")[:40])
    with pytest.raises(DamagedFile, match=r"input\.parquet is damaged: expected a whole Parquet"):
        Run.open(any_url)
    other = [*run.inputs[1:], dataclasses.replace(run.inputs[0], size_bytes=1)]
    data = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([dataclasses.asdict(item) for item in other]), data)
    run.store.put("input.parquet", data.getvalue().to_pybytes())
    with pytest.raises(DamagedFile, match=r"expected the list of the digest \w+"):
        Run.open(any_url)
