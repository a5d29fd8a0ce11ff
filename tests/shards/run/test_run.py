"""One folder, one recipe, one list of inputs; a creation cut short is finished by the next."""

import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pytest

from shards.inputs.listing import InputMismatch, InputShard
from shards.run.run import NotARun, Run, RunMismatch, canonical_json, fingerprint
from shards.store import Store
from tests.shards.conftest import MakeRun

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
    for broken, message in ((b"{", "cannot be read"), (b'{"run_version": 9}', "newer")):
        store.put("run.json", broken)
        with pytest.raises(NotARun, match=message):
            Run.open(any_url)


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
    with pytest.raises(NotARun, match=r"input\.parquet cannot be read"):
        Run.open(any_url)
