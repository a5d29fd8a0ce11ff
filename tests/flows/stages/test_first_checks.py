"""The first checks: what a command names is there, or it is said; nothing is made."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from flows.recipe import Recipe, RecipeError
from flows.rounds.recipe import BootstrapRecipe, TrialRecipe
from flows.stages.first_checks import (
    NotEmpty,
    check_cleaning,
    check_new,
    check_rounds,
    check_training,
    check_trial,
)
from flows.training.recipe import FinetuneRecipe
from models.checkpoints.locate import CheckpointError
from pipeline.clean.lists import ListError
from shards.errors import UsageError
from shards.run.exclusion import SKIP_NAME
from tests.support.toy_run import write_tar


def recipe(folder: Path, **changed: Any) -> Recipe:
    write_tar(folder / "a.tar", {"a.txt": b"a dog"})
    sections = {
        "input": {"urls": [str(folder)]},
        "output": str(folder / "out"),
        "caption": {"model": "tiny-captioner"},
        "score": {"model": "tiny-filter"},
    }
    return Recipe.model_validate(sections | changed)


def test_what_is_there_is_found_and_nothing_is_made(tmp_path: Path) -> None:
    checked = check_cleaning(recipe(tmp_path))
    assert [shard.shard for shard in checked.inputs] == ["a"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"input": {"urls": ["nothere"]}}, UsageError, "nothere"),
        ({"score": {"model": "./nofilter"}}, CheckpointError, "nofilter"),
        ({"skip": "nowhere.txt"}, ListError, "nowhere.txt: no such list"),
        ({"engine": {"address": "127.0.0.1:9"}}, UsageError, "no Ray cluster answers"),
    ],
)
def test_what_is_not_there_is_said(
    tmp_path: Path, changed: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        check_cleaning(recipe(tmp_path, **changed))


def test_a_skip_list_of_another_input_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "skip.txt").write_text("elsewhere/1")
    with pytest.raises(ListError, match="names 'elsewhere' and no shard of this input"):
        check_cleaning(recipe(tmp_path, skip=str(tmp_path / "skip.txt")))
    (tmp_path / "skip.txt").write_text("a/a")
    checked = check_cleaning(recipe(tmp_path, skip=str(tmp_path / "skip.txt")))
    assert checked.lists.keys() == {SKIP_NAME}


def test_a_model_of_the_hub_is_looked_for_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(CheckpointError, match="hf download OWNER/none"):
        check_cleaning(recipe(tmp_path, score={"model": "OWNER/none"}))


def test_an_address_does_not_matter_where_the_work_is_done_here(tmp_path: Path) -> None:
    check_cleaning(recipe(tmp_path, engine={"kind": "local", "address": "127.0.0.1:9"}))


def test_a_first_look_wants_a_new_folder(tmp_path: Path) -> None:
    check_new(str(tmp_path / "new"))
    (tmp_path / "letter").touch()
    with pytest.raises(NotEmpty, match="found letter"):
        check_new(str(tmp_path))


def finetuning(folder: Path, **changed: Any) -> FinetuneRecipe:
    write_tar(folder / "human.tar", {"a.txt": b"a dog"})
    values: dict[str, Any] = {
        "output": str(folder / "out"),
        "task": "filter",
        "model": {"start": "tiny-filter"},
        "data": {"sources": [{"shards": [str(folder / "human.tar")]}], "lanes": 2},
        "step": {"batch_size": 4},
        "launch": {"kind": "local"},
    }
    return FinetuneRecipe.model_validate(values | changed)


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"model": {"start": "./nostart"}}, CheckpointError, r"model\.start: .*nostart"),
        ({"captions": {"captioner": "./nobody"}}, CheckpointError, "captioner: .*nobody"),
        ({"data": {"sources": [{"shards": ["nothere"]}], "lanes": 2}}, UsageError, "nothere"),
        ({"data": {"sources": [{"run": "norun"}], "lanes": 2}}, UsageError, "norun"),
        ({"data": {"sources": [{"annotations": "no.json"}], "lanes": 2}}, UsageError, "no.json is"),
        ({"step": {"batch_size": 5}}, RecipeError, "multiple of data.lanes"),
        (
            {"launch": {"kind": "ray", "address": "127.0.0.1:9"}},
            UsageError,
            "no Ray cluster answers",
        ),
    ],
)
def test_what_a_training_names_is_looked_for(
    tmp_path: Path, changed: dict[str, Any], kind: type[Exception], message: str
) -> None:
    check_training(finetuning(tmp_path))
    with pytest.raises(kind, match=message):
        check_training(finetuning(tmp_path, **changed))
    assert not (tmp_path / "out").exists()


def experiment(folder: Path, **changed: Any) -> dict[str, Any]:
    sections: dict[str, Any] = {"output": str(folder / "out"), "data": {"lanes": 2}}
    for name in ("human", "held_out", "web"):
        write_tar(folder / f"{name}.tar", {"a.txt": b"a dog"})
        sections[name] = {"urls": [str(folder / f"{name}.tar")]}
    for name in ("pretrain", "captioner", "filter"):
        sections[name] = {"step": {"batch_size": 4}}
    return sections | changed


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"web": {"urls": ["noweb"]}}, "noweb"),
        ({"human": {"urls": ["nohuman"]}}, "nohuman"),
        ({"held_out": {"urls": ["noheld"]}}, "noheld"),
        ({"filter": {"step": {"batch_size": 5}}}, "multiple of data.lanes"),
        ({"pretrain": {"model": {"start": "./x"}, "step": {"batch_size": 4}}}, "model.start: "),
        ({"launch": {"address": "127.0.0.1:9"}}, "no Ray cluster answers"),
        ({"engine": {"address": "127.0.0.1:9"}}, "no Ray cluster answers"),
    ],
)
def test_what_rounds_name_is_looked_for(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    check_rounds(BootstrapRecipe.model_validate(experiment(tmp_path)))
    with pytest.raises((UsageError, CheckpointError), match=message):
        check_rounds(BootstrapRecipe.model_validate(experiment(tmp_path, **changed)))


def test_what_a_trial_names_is_looked_for(tmp_path: Path) -> None:
    values = experiment(tmp_path)
    for name in ("web", "captioner", "filter"):
        del values[name]
    with pytest.raises(RecipeError, match="as many steps"):
        check_trial(TrialRecipe.model_validate(values), [])
    values["pretrain"] = {"step": {"batch_size": 4, "steps": 2, "epochs": None}}
    check_trial(TrialRecipe.model_validate(values), [])
    with pytest.raises(UsageError, match="norun"):
        check_trial(TrialRecipe.model_validate(values), ["norun:strict"])
