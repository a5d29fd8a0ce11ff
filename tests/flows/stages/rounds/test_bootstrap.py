"""Rounds: what each stage is given, what is done again and what is not, and who lets them go on."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.cli.display.progress import RunProgress
from flows.lock import LOCK, FolderInUse, lock_folder
from flows.recipe import RecipeError, read_recipe
from flows.rounds.approval import Answer
from flows.rounds.ledger import Ledger, read_ledger
from flows.rounds.names import STAGES
from flows.rounds.recipe import BootstrapRecipe
from flows.stages.clean import RunListener
from flows.stages.rounds import bootstrap
from flows.training.log import Display
from models.blip.tokenizer import load
from models.checkpoints import checkpoint
from pipeline.train.config import check_batch
from shards.run.run import RunMismatch
from shards.training.source import SourceConfig
from shards.training.source_reader import open_source

pytestmark = pytest.mark.slow

RECIPES = Path(bootstrap.__file__).parents[2] / "recipes"
FITS = {"step": {"epochs": None, "steps": 2, "batch_size": 12}}
Rounds = Callable[..., BootstrapRecipe]


class Step:
    """What a step comes to."""

    result: Any = None


class Listener:
    """Hears what is done, and answers what it is told to."""

    def __init__(self, answer: Answer | None) -> None:
        self.steps_done: list[tuple[str, Any]] = []
        self.done: list[tuple[int, str]] = []
        self.before: list[tuple[int, str]] = []
        self.asked: list[int] = []
        self.steps: list[tuple[int, int]] = []
        self._answer = answer

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        step = Step()
        yield step
        self.steps_done.append((name, step.result))

    @contextmanager
    def training(self, steps: int) -> Iterator[Display]:
        yield lambda line: self.steps.append((line["step"], steps))

    @contextmanager
    def cleaning(self) -> Iterator[RunListener]:
        with RunProgress().shown() as progress:
            yield progress

    def ended(self, number: int, stage: str, entry: dict[str, Any], before: bool) -> None:
        assert entry
        (self.before if before else self.done).append((number, stage))

    def ask(self, ledger: Ledger, number: int) -> Answer | None:
        assert "gate" in ledger.rounds[number - 1]
        self.asked.append(number)
        return self._answer


YES = Answer.now(True, "a test", "it may")


def go(recipe: BootstrapRecipe, answer: Answer | None = YES) -> tuple[Ledger, Listener]:
    listener = Listener(answer)
    return bootstrap.run(bootstrap.prepare(recipe), listener), listener


def without_cost(folder: Path) -> dict[str, Any]:
    found = read_ledger(folder)
    assert found is not None
    del found["cost"]
    return found


def write_perfect_evaluation(folder: Path, number: int) -> None:
    """Let a round have found every text and picture, so that none can be better."""
    path = folder / f"round-{number}" / "evaluation.json"
    found = json.loads(path.read_text())
    found["retrieval"]["itm"] |= {"tr@1": 1.0, "ir@1": 1.0}
    path.write_text(json.dumps(found))


@pytest.fixture(scope="module")
def two_rounds(tmp_path_factory: pytest.TempPathFactory, small_rounds: Rounds) -> Path:
    """Two rounds that were never cut off."""
    folder = tmp_path_factory.mktemp("rounds") / "out"
    ledger, listener = go(small_rounds(folder))
    assert ledger.ended == "rounds"
    assert listener.done == [(number, stage) for number in (1, 2) for stage in STAGES]
    begun = [steps for done, steps in listener.steps if done == 0]  # of each training
    assert begun == [4, 2, 2] * 2
    return folder


@pytest.fixture
def one_round(two_rounds: Path, tmp_path: Path) -> Path:
    """A folder in which the first round is done."""
    folder = tmp_path / "out"
    shutil.copytree(two_rounds, folder)
    shutil.rmtree(folder / "round-2")
    return folder


def test_the_ledger_says_what_lies_in_the_folders(two_rounds: Path) -> None:
    ledger = without_cost(two_rounds)
    assert [entry["round"] for entry in ledger["rounds"]] == [1, 2]
    for entry in ledger["rounds"]:
        folder = two_rounds / f"round-{entry['round']}"
        for stage in ("pretrain", "captioner", "filter"):
            digest = checkpoint.info(folder / stage / "model").digest
            assert entry[stage]["checkpoints"] == {stage: digest}
        tables = [pq.read_table(path) for path in (folder / "run/data/texts").glob("*.parquet")]
        origins = [origin for table in tables for origin in table["origin"].to_pylist()]
        decided = [pq.read_table(path) for path in (folder / "run/data/decisions").glob("*")]
        texts = entry["clean"]["texts"]
        assert {name: texts[name]["in"] for name in texts} == {
            name: origins.count(name) for name in set(origins)
        }
        kept = sum(sum(table["keep"].to_pylist()) for table in decided)
        assert sum(found["kept"] for found in texts.values()) == kept
        assert entry["clean"]["snapshot"] in {path.stem for path in folder.glob("run/snapshots/*")}


def test_the_gate_looks_at_retrieval_alone(two_rounds: Path) -> None:
    first, second = without_cost(two_rounds)["rounds"]
    for entry in (first, second):
        itm = entry["evaluate"]["retrieval"]["itm"]
        assert entry["gate"]["measure"] == pytest.approx((itm["tr@1"] + itm["ir@1"]) / 2)
    assert first["gate"]["improved"]
    assert second["gate"]["best_before"] == first["gate"]["measure"]
    better = second["gate"]["measure"] > first["gate"]["measure"]
    assert second["gate"]["improved"] == better
    assert without_cost(two_rounds)["best"] == (2 if better else 1)


def test_a_later_round_learns_from_what_the_one_before_kept(
    two_rounds: Path, small_world: Path
) -> None:
    human = open_source(SourceConfig(shards=(str(small_world / "human"),)))
    web = open_source(SourceConfig(shards=(str(small_world / "web"),)))
    kept = open_source(SourceConfig(run=str(two_rounds / "round-1" / "run")))
    assert kept.rows < web.rows
    rounds = without_cost(two_rounds)["rounds"]
    for entry, first in zip(rounds, (web, kept), strict=True):
        found = {source["name"]: source["rows"] for source in entry["pretrain"]["sources"]}
        assert found == {first.name: first.rows, human.name: human.rows}
        for stage in ("captioner", "filter"):
            assert [source["name"] for source in entry[stage]["sources"]] == [human.name]


def test_from_scratch_rounds_begin_alike(two_rounds: Path) -> None:
    starts = [two_rounds / f"round-{number}" / "pretrain" / "start" for number in (1, 2)]
    assert load(starts[0]).to_json() == load(starts[1]).to_json()
    assert checkpoint.info(starts[0]).digest == checkpoint.info(starts[1]).digest


def test_what_is_done_is_not_done_again(two_rounds: Path, small_rounds: Rounds) -> None:
    results = [path for path in two_rounds.rglob("*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in results}
    _, listener = go(small_rounds(two_rounds))
    assert listener.done == []
    assert listener.before == [(number, stage) for number in (1, 2) for stage in STAGES]
    after = {path: path.stat().st_mtime_ns for path in results}
    changed = {path.name for path in results if before[path] != after[path]}
    assert changed <= {"rounds.json", "recipe.yaml", LOCK}


def test_a_lost_ledger_is_written_anew(two_rounds: Path, small_rounds: Rounds) -> None:
    before = without_cost(two_rounds)
    (two_rounds / "rounds.json").unlink()
    go(small_rounds(two_rounds))
    assert without_cost(two_rounds) == before


def test_another_process_in_the_folder_is_left_alone(
    tmp_path: Path, two_rounds: Path, small_rounds: Rounds
) -> None:
    job = bootstrap.prepare(small_rounds(tmp_path / "out"))
    before = (tmp_path / "out" / "recipe.yaml").read_bytes()
    with lock_folder(tmp_path / "out"):
        with pytest.raises(FolderInUse):
            bootstrap.prepare(small_rounds(tmp_path / "out", rounds=7))
        with pytest.raises(FolderInUse):
            bootstrap.run(job, Listener(YES))
        bootstrap.prepare(small_rounds(two_rounds))  # another folder
    assert (tmp_path / "out" / "recipe.yaml").read_bytes() == before
    assert not (tmp_path / "out" / "round-1").exists()


def test_what_another_process_spent_since_is_not_forgotten(
    one_round: Path, small_rounds: Rounds
) -> None:
    job = bootstrap.prepare(small_rounds(one_round))
    before = read_ledger(one_round)
    assert before
    spent = Ledger(one_round, before["identity"])
    spent.begin(2, "pretrain")
    bootstrap.run(job, Listener(YES))
    after = read_ledger(one_round)
    assert after
    cost = after["cost"]["round-2"]["pretrain"]
    assert [attempt["ended"] is None for attempt in cost[-2:]] == [True, False]


def test_a_stage_that_was_cut_off_is_done_again_and_comes_to_the_same(
    two_rounds: Path, tmp_path: Path, small_rounds: Rounds
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(two_rounds, folder)
    (folder / "round-2" / "filter" / "result.json").unlink()
    shutil.rmtree(folder / "round-2" / "filter" / "states" / "step-00000002")
    shutil.rmtree(folder / "round-2" / "filter" / "model")
    shutil.rmtree(folder / "round-2" / "run")
    (folder / "round-2" / "evaluation.json").unlink()
    _, listener = go(small_rounds(folder))
    assert listener.done == [(2, "filter"), (2, "clean"), (2, "evaluate")]
    assert without_cost(folder) == without_cost(two_rounds)


def test_a_gate_that_stops(one_round: Path, small_rounds: Rounds) -> None:
    write_perfect_evaluation(one_round, 1)
    recipe = small_rounds(one_round, gate="stop", rounds=3)
    ledger, _ = go(recipe)
    assert (ledger.ended, ledger.best, len(ledger.rounds)) == ("gate", 1, 2)
    assert not (one_round / "round-3").exists()
    again, listener = go(recipe)
    assert (again.ended, listener.done) == ("gate", [])


def test_a_gate_that_records_goes_on(
    two_rounds: Path, tmp_path: Path, small_rounds: Rounds
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(two_rounds, folder)
    write_perfect_evaluation(folder, 1)
    ledger, _ = go(small_rounds(folder))
    assert (ledger.ended, ledger.best, len(ledger.rounds)) == ("rounds", 1, 2)
    assert not ledger.rounds[1]["gate"]["improved"]


def test_going_on_from_the_network_of_the_round_before(
    tmp_path: Path, small_rounds: Rounds
) -> None:
    go(small_rounds(tmp_path / "out", next="continue"))
    claim = json.loads((tmp_path / "out/round-2/pretrain/training.json").read_text())
    before = checkpoint.info(tmp_path / "out/round-1/pretrain/model").digest
    assert claim["identity"]["model"]["start"] == before


def test_a_filter_learns_from_the_captions_of_its_own_rounds_captioner(
    tmp_path: Path, two_rounds: Path, small_rounds: Rounds
) -> None:
    tuned = small_rounds(tmp_path).filter.model_dump() | {"captions": {"overlap": 0.9}}
    caption = {"prompt": "a drawing of ", "max_tokens": 6}
    clean = small_rounds(tmp_path).clean.model_dump() | {"caption": caption}
    go(small_rounds(tmp_path / "out", rounds=1, filter=tuned, clean=clean))
    folder = tmp_path / "out" / "round-1"
    claims = {
        stage: json.loads((folder / stage / "training.json").read_text())["identity"]
        for stage in ("captioner", "filter")
    }
    found = claims["filter"]["captions"]
    assert found["captioner"] == checkpoint.info(folder / "captioner" / "model").digest
    assert (found["overlap"], found["prompt"]) == (0.9, "a drawing of ")
    assert claims["captioner"].get("captions") is None
    usual = json.loads((two_rounds / "round-1/filter/training.json").read_text())["identity"]
    assert usual.get("captions") is None
    without = checkpoint.info(two_rounds / "round-1" / "filter" / "model").digest
    assert checkpoint.info(folder / "filter" / "model").digest != without


def test_the_next_round_waits_for_a_person(one_round: Path, small_rounds: Rounds) -> None:
    recipe = small_rounds(one_round, approve=True)
    for answer in (None, Answer.now(False, "a test", "not yet")):
        ledger, listener = go(recipe, answer)
        assert (ledger.ended, listener.asked, listener.done) == ("approval", [1], [])
        assert listener.steps_done[-2:] == [("round 1: gate", "ask"), ("round 1: approval", "over")]
        assert not (one_round / "round-2").exists()
    assert bootstrap.approve(one_round, None, YES) == (1, YES)
    assert bootstrap.approve(one_round, 1, Answer.now(True, "another", "again")) == (1, YES)
    ledger, listener = go(recipe, None)
    assert (ledger.ended, listener.asked) == ("rounds", [])
    assert listener.done == [(2, stage) for stage in STAGES]


def test_only_a_round_that_is_done_can_be_approved(one_round: Path) -> None:
    with pytest.raises(RecipeError, match="round 2 is not done"):
        bootstrap.approve(one_round, 2, YES)
    with pytest.raises(RecipeError, match="holds no rounds"):
        bootstrap.approve(one_round / "round-1", None, YES)


@pytest.mark.parametrize("name", ["human", "web"])
def test_held_out_pairs_must_not_be_trained_on(
    tmp_path: Path, small_world: Path, small_rounds: Rounds, name: str
) -> None:
    held_out = {"urls": [str(small_world / name / "00001.tar")]}
    with pytest.raises(RecipeError, match=f"held_out: 1 shard under {name}"):
        bootstrap.prepare(small_rounds(tmp_path, held_out=held_out))


def test_a_threshold_in_percent_is_told_before_any_work(
    tmp_path: Path, small_world: Path, small_rounds: Rounds, caplog: pytest.LogCaptureFixture
) -> None:
    held_out = {"urls": [str(small_world / "human" / "00001.tar")]}
    clean = {"judge": {"threshold": {"web": 50}}}
    with pytest.raises(RecipeError, match="held_out"):
        bootstrap.prepare(small_rounds(tmp_path, held_out=held_out, clean=clean))
    assert "'web' texts is 50," in caplog.text


def test_a_copy_of_what_is_trained_on_is_not_held_out(
    tmp_path: Path, small_world: Path, small_rounds: Rounds
) -> None:
    copied = tmp_path / "other.tar"
    shutil.copy(small_world / "human" / "00002.tar", copied)
    with pytest.raises(RecipeError, match="has the content of"):
        bootstrap.prepare(small_rounds(tmp_path / "out", held_out={"urls": [str(copied)]}))


def test_rounds_of_another_recipe_are_refused(two_rounds: Path, small_rounds: Rounds) -> None:
    with pytest.raises(RunMismatch, match="seed: 0 -> 7"):
        bootstrap.prepare(small_rounds(two_rounds, seed=7))
    for allowed in ({"rounds": 5}, {"gate": "stop"}, {"approve": True}):
        bootstrap.prepare(small_rounds(two_rounds, **allowed))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"lanes": 5}}, "multiple of data.lanes"),
        ({"clean": {"caption": {"method": "greedy", "candidates": 2}}}, "candidates is 2"),
        ({"filter": {"captions": {"prompt": "a "}, **FITS}}, r"captions\.prompt is 'a '"),
        (
            {"filter": {"captions": {}, "model": {"image_size": 64}, **FITS}},
            r"captioner\.model\.image_size is None and filter\.model\.image_size 64",
        ),
    ],
)
def test_keys_that_do_not_fit_together(
    tmp_path: Path, small_rounds: Rounds, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        bootstrap.prepare(small_rounds(tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["bootstrap.yaml", "toy-bootstrap.yaml"])
def test_shipped_recipes_load(name: str) -> None:
    recipe = read_recipe(BootstrapRecipe, RECIPES / "rounds" / name, {})
    for section in (recipe.pretrain, recipe.captioner, recipe.filter):
        check_batch(section.step, recipe.data.lanes)
