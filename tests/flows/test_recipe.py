"""The recipe: what it accepts, and how it says what is wrong."""

import gc
import os
import re
import time
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from flows import recipe
from flows.recipe import Recipe, RecipeError, ScreenRecipe, dump_recipe, read_recipe
from flows.rounds.recipe import BootstrapRecipe, TrialRecipe
from flows.study.recipe import StudyRecipe
from flows.training.recipe import FinetuneRecipe, LaunchConfig, PretrainRecipe
from models.captioners.config import (
    BlipCaptionerConfig,
    EndpointCaptionerConfig,
    TransformersCaptionerConfig,
)
from models.scorers.config import DualEncoderConfig
from pipeline.train.config import DataConfig, StepConfig, check_division
from pipeline.train.pretrain_config import ModelConfig
from shards.errors import UsageError

RECIPES = sorted((Path(recipe.__file__).parent / "recipes").rglob("*.yaml"))
LEAST = {
    "input.urls": ["a.tar"],
    "output": "run",
    "caption.model": "a/captioner",
    "score.model": "a/filter",
}


def test_defaults_are_those_of_the_paper() -> None:
    loaded = read_recipe(Recipe, None, LEAST)
    (caption,) = loaded.captioners
    assert isinstance(caption, BlipCaptionerConfig)
    assert (caption.method, caption.top_p, caption.top_k) == ("nucleus", 0.9, 0)
    assert loaded.judge.threshold == {"web": 0.5, "synthetic": 0.5}
    assert caption.candidates == 1
    assert loaded.engine.kind == LaunchConfig().kind == "auto"


KINDS: dict[str, type[BaseModel]] = {
    "clean": Recipe,
    "train": FinetuneRecipe,
    "toy": FinetuneRecipe,
    "rounds": BootstrapRecipe,
    "study": StudyRecipe,
}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_shipped_recipes_load(path: Path) -> None:
    kind = PretrainRecipe if path.stem.startswith("pretrain") else KINDS[path.parent.name]
    least = LEAST if kind is Recipe else {}
    if kind is FinetuneRecipe:
        least = {"task": path.stem.removeprefix("finetune-").split("-")[0]}
    assert isinstance(read_recipe(kind, path, least), kind)


@pytest.mark.parametrize(
    "path", [path for path in RECIPES if path.parent.name == "train"], ids=lambda path: path.stem
)
def test_recipes_of_the_papers_size_run_on_the_usual_machines(path: Path) -> None:
    """On 8, 16 and 32 GPUs, and with the paper's batch."""
    dialogue, large = "dialogue" in path.stem, path.stem.endswith("-large")
    if path.stem.startswith("pretrain"):
        loaded: PretrainRecipe | FinetuneRecipe = read_recipe(PretrainRecipe, path, {})
        batch = 2_400 if large else 2_880
    else:
        loaded = read_recipe(FinetuneRecipe, path, {"task": path.stem.split("-")[1]})
        batch = 240 if dialogue else 256
    assert loaded.step.batch_size == batch
    for workers in (8, 16) if dialogue else (8, 16, 32):  # 32 do not divide 240
        check_division(loaded, workers)


def test_every_kind_of_recipe_is_shipped() -> None:
    assert KINDS.keys() == {path.parent.name for path in RECIPES}


def test_the_recipe_of_pre_training_names_every_key_with_its_default() -> None:
    path = Path(recipe.__file__).parent / "recipes" / "train" / "pretrain.yaml"
    written = yaml.safe_load(path.read_text())
    sources = {"data.sources": written["data"]["sources"], "output": written["output"]}
    defaults = read_recipe(PretrainRecipe, None, sources)
    assert read_recipe(PretrainRecipe, path, {}) == defaults
    for section, model in (("data", DataConfig), ("model", ModelConfig), ("step", StepConfig)):
        assert written[section].keys() == model.model_fields.keys()
    for section in ("loss", "rate", "save", "launch", "augment"):
        assert written[section].keys() == type(getattr(defaults, section)).model_fields.keys()


def test_the_recipe_of_cleaning_names_every_key_with_its_default() -> None:
    path = Path(recipe.__file__).parent / "recipes" / "clean" / "clean.yaml"
    written = yaml.safe_load(path.read_text())
    models = {
        "caption.model": written["caption"]["model"],
        "score.model": written["score"]["model"],
    }
    least = {"input.urls": written["input"]["urls"], "output": written["output"]} | models
    assert read_recipe(Recipe, path, {}) == (defaults := read_recipe(Recipe, None, least))
    assert written.keys() == Recipe.model_fields.keys()
    for section in ("input", "screen", "caption", "score", "judge", "write", "limits", "engine"):
        assert written[section].keys() == type(getattr(defaults, section)).model_fields.keys()


def test_recipes_of_cleaning_screen_too(tmp_path: Path) -> None:
    for path in (path for path in RECIPES if path.parent.name == "clean"):
        assert isinstance(read_recipe(ScreenRecipe, path, {}), ScreenRecipe)
    dumped = tmp_path / "recipe.yaml"  # as `capfilt try` leaves one
    dumped.write_text(dump_recipe(read_recipe(Recipe, None, LEAST)))
    assert read_recipe(ScreenRecipe, dumped, {}).output == "run"


def test_the_recipe_of_cleaning_names_the_keys_of_guests_too() -> None:
    path = Path(recipe.__file__).parent / "recipes" / "clean" / "clean.yaml"
    _, _, comment = path.read_text().partition("\n#\n# caption:\n")
    guests = yaml.safe_load(re.sub(r"(?m)^# ?", "", f"# caption:\n{comment}"))
    kinds: tuple[type[BaseModel], ...] = (
        TransformersCaptionerConfig,
        EndpointCaptionerConfig,
        DualEncoderConfig,
    )
    for written, kind in zip([*guests["caption"], *guests["score"]], kinds, strict=True):
        fields = kind.model_fields
        assert written.keys() == fields.keys()
        least = {name: written[name] for name in written if fields[name].is_required()}
        assert kind.model_validate(written) == kind.model_validate(least)


def test_flags_go_over_the_file_and_settings_over_flags(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("seed: 1\noutput: from_file\ncaption: {top_p: 0.5}\n")
    loaded = read_recipe(Recipe, file, LEAST, ["seed=3", "caption.top_p=0.7"])
    assert (loaded.output, loaded.seed, loaded.captioners[0].top_p) == ("run", 3, 0.7)


def test_only_flags_that_were_typed_go_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("seed: 1\noutput: from_file\n")
    loaded = read_recipe(Recipe, file, LEAST | {"output": None, "seed": 0})
    assert (loaded.output, loaded.seed) == ("from_file", 0)


def test_a_dumped_recipe_loads_to_the_same(tmp_path: Path) -> None:
    first = read_recipe(Recipe, None, LEAST, ["caption.prompt='a photo of '", "judge.min_words=2"])
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_recipe(first))
    assert read_recipe(Recipe, file, {}) == first


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("caption.topp=0.5", r"caption\.topp: there is no .* Did you mean caption\.top_p\?"),
        ("sead=1", r"sead: there is no such key\. Did you mean seed\?"),
        ("caption.top_p=high", r"caption\.top_p: .*found 'high'"),
        ("caption.top_p=1.5", r"caption\.top_p: .*less than or equal to 1.*found 1\.5"),
        ("caption=5", r"caption: .*found 5"),
        ("recipe_version=2", r"recipe_version: .*found 2"),
        ("seed", r"--set seed: expected NAME=VALUE"),
        ("seed.low=1", r"seed\.low"),
        ("engine.kind=spark", r"engine\.kind: .*'ray'.*'local'.*found 'spark'"),
        ("screen.min_side=[1", r"not YAML"),
        ("engine.gpus_per_actor=1.5", r"engine\.gpus_per_actor: .*a whole number.*found 1\.5"),
        ("engine.gpus_per_actor=1e-320", r"engine\.gpus_per_actor: .*0\.0001 or more"),
        ("engine.gpus_per_actor=0.33333", r"engine\.gpus_per_actor: .*0\.0001 or more"),
        ("engine.gpus_per_actor=.inf", r"engine\.gpus_per_actor: "),
    ],
)
def test_a_broken_setting_is_named(setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_recipe(Recipe, None, LEAST | {"seed": 0}, [setting])


@pytest.mark.parametrize("missing", LEAST)
def test_a_missing_key_is_named(missing: str) -> None:
    rest = {key: value for key, value in LEAST.items() if key != missing}
    with pytest.raises(RecipeError, match=rf"{missing.split('.')[0]}.*: missing"):
        read_recipe(Recipe, None, rest)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "holds a list, no recipe"),
        ("notes", "holds a text, no recipe"),
        ("a: [", "cannot be read"),
        ("!!python/object:os.x {}", "cannot"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        read_recipe(Recipe, file, LEAST)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.tar", "is a tar"), ("a.HEIC", "is a picture"), (".", "is a folder"), ("a.bin", "no text")],
)
def test_inputs_in_the_place_of_a_recipe_are_named(tmp_path: Path, name: str, message: str) -> None:
    if name != ".":
        (tmp_path / name).write_bytes(b"\xff" * 2_000_000 if name == "a.tar" else b"\xff")
    with pytest.raises(RecipeError, match=f"{message}.*no recipe.*given with --input") as caught:
        read_recipe(Recipe, tmp_path / name, {})
    assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(RecipeError, match=message) as caught:
        read_recipe(PretrainRecipe, tmp_path / name, {})
    assert "--input" not in str(caught.value)


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no recipe at .*nowhere\.yaml"):
        read_recipe(Recipe, tmp_path / "nowhere.yaml", LEAST)


@pytest.mark.parametrize("kind", [PretrainRecipe, FinetuneRecipe, BootstrapRecipe, TrialRecipe])
def test_workers_that_there_would_not_be_are_refused(kind: type[BaseModel]) -> None:
    with pytest.raises(RecipeError, match=r"launch: .*workers is 3.* set workers to auto, or kind"):
        read_recipe(kind, None, {}, ["launch.kind=local", "launch.workers=3"])


@pytest.mark.parametrize(
    ("kind", "workers"), [("local", 1), ("local", "auto"), ("ray", 3), ("auto", 3)]
)
def test_workers_that_there_are_can_be_given(kind: str, workers: int | str) -> None:
    launch = LaunchConfig.model_validate({"kind": kind, "workers": workers})
    assert launch.workers == workers


def test_a_loaded_recipe_cannot_be_changed() -> None:
    loaded = read_recipe(Recipe, None, LEAST)
    with pytest.raises(ValueError, match="frozen"):
        loaded.seed = 5  # type: ignore[misc]  # what is refused


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            "data.sources=[{annotation: a.json}]",
            r"data\.sources\.0\.annotation: .* Did you mean data\.sources\.annotations\?",
        ),
        (
            "questions={sources: [{run: r}], shares: 0.5}",
            r"questions\.shares: .* Did you mean questions\.share\?",
        ),
    ],
)
def test_the_nearest_key_is_found_in_lists_and_in_sections_that_may_be_absent(
    setting: str, said: str
) -> None:
    least = {"output": "o", "task": "joint", "model.start": "s", "data.sources": [{"run": "r"}]}
    with pytest.raises(RecipeError, match=said):
        read_recipe(FinetuneRecipe, None, least, [setting])


def aliases(levels: int) -> str:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]")
    return "\n".join(lines)


HOSTILE = {
    "brackets": ("[" * 50_000, "nested deeper than"),
    "digits": (f"seed: {'9' * 10_000}", "a value cannot be read"),
    "hexadecimal digits": (f"seed: 0x{'f' * 10_000}", "a whole number of 40,000 bits"),
    "aliases in a checked key": (f"{aliases(4)}\nseed: *a3", "seed: .*found "),
    "more aliases": (f"{aliases(9)}\nseed: *a8", "aliases written out"),
    "many unknown keys": ("\n".join(f"key{n}: 1" for n in range(9_000)), "and 8,9.. more"),
    "a long key": (f"? {'k' * 200_000}\n: 1\n", "there is no such key"),
    "a long value": (f"seed: {'k' * 200_000}", "seed: .*found 'kkk"),
    "NUL": ('output: "x\\0"', "holds a NUL"),
    "half a character": ('output: "\\ud800"', "half a character"),
    "too long": ("#" * (2 << 20), "longer than"),
    "keys that are no names": (
        "1: 2\n[1, 2]: 3\nnull: 4\n1.5: 5",
        "there is no such key|unhashable",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_recipe_is_a_short_message(tmp_path: Path, name: str) -> None:
    text, message = HOSTILE[name]
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    gc.freeze()  # what other tests left is not looked through for garbage in this one's time
    start_s = time.process_time()
    try:
        with pytest.raises(RecipeError, match=message) as refused:
            read_recipe(Recipe, file, LEAST)
    finally:
        gc.unfreeze()
    assert time.process_time() - start_s < 2  # a third of one alone, thrice that beside others
    assert len(str(refused.value)) < 5_000


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (f"seed={'[' * 50_000}", "nested deeper than"),
        (f"seed={'9' * 10_000}", "a value cannot be read"),
        (f"seed=0x{'f' * 10_000}", "a whole number of"),
        (f"{'a.' * 50_000}b=1", "deeper than 32 sections"),
        ("k" * 100_000, "expected NAME=VALUE"),
    ],
)
def test_a_hostile_setting_is_a_short_message(setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as refused:
        read_recipe(Recipe, None, LEAST, [setting])
    assert len(str(refused.value)) < 1_000


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_recipe_is_a_file(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "recipe.yaml"
    os.mkfifo(file) if kind == "pipe" else file.symlink_to("/dev/zero")
    with pytest.raises(UsageError, match=f"recipe.yaml is a (named )?{kind}, expected a file"):
        read_recipe(Recipe, file, LEAST)


def test_a_setting_changes_one_section_though_two_share_it(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("judge: {threshold: &t {web: 0.1, synthetic: 0.2}}\nwrite: {}\n")
    loaded = read_recipe(Recipe, file, LEAST, ["judge.threshold.web=0.7"])
    assert loaded.judge.threshold == {"web": 0.7, "synthetic": 0.2}


def test_a_place_of_texts_that_is_none_is_named() -> None:
    assert read_recipe(Recipe, None, LEAST, ["input.text=json:alt"]).input.text == "json:alt"
    with pytest.raises(RecipeError, match=r"input.text: .*'json:' is no place of texts"):
        read_recipe(Recipe, None, LEAST, ["input.text='json:'"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("judge.threshold=0.6", "judge.threshold: it is a section; give a key of it, as in judge."),
        ("caption.top_p=high", "caption.top_p: expected a number, found 'high'"),
        ("caption.beams=2.5", "caption.beams: expected a whole number, found 2.5"),
        ("engine.actors=many", "engine.actors: expected a whole number, found 'many'"),
        ("input.urls=3", "input.urls: expected a list, as in [a, b], found 3"),
    ],
)
def test_a_value_of_a_wrong_type_is_told_in_plain_words(setting: str, message: str) -> None:
    with pytest.raises(RecipeError) as told:
        read_recipe(Recipe, None, LEAST, [setting])
    assert message in str(told.value)
    assert "Input should" not in str(told.value)


def test_a_wrong_member_does_not_make_a_list_too_short() -> None:
    with pytest.raises(RecipeError, match="'english' is no language") as told:
        read_recipe(Recipe, None, LEAST, ["screen.languages=english"])
    assert "at least" not in str(told.value)
    with pytest.raises(RecipeError, match=r"languages\.keep: expected one at least"):
        read_recipe(Recipe, None, LEAST, ["screen.languages=[]"])


@pytest.mark.parametrize(
    ("kind", "other", "command"),
    [
        (Recipe, "rounds/toy-bootstrap.yaml", "bootstrap"),
        (Recipe, "toy/pretrain.yaml", "pretrain"),
        (PretrainRecipe, "clean/demo.yaml", "clean"),
        (BootstrapRecipe, "clean/demo.yaml", "clean"),
    ],
)
def test_a_recipe_of_another_command_names_it(
    kind: type[BaseModel], other: str, command: str
) -> None:
    with pytest.raises(RecipeError, match=f"{other} is for `capfilt {command}`") as told:
        read_recipe(kind, Path(recipe.__file__).parent / "recipes" / other, {})
    assert "\n" not in str(told.value)


def test_a_recipe_of_such_a_name_is_offered(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").touch()
    offered = f"no recipe at .*recipie.yaml. Did you mean {tmp_path}/recipe.yaml\\?"
    with pytest.raises(RecipeError, match=offered):
        read_recipe(Recipe, tmp_path / "recipie.yaml", {})
    with pytest.raises(RecipeError, match=r"no recipe at .*/none$"):
        read_recipe(Recipe, tmp_path / "none", {})
