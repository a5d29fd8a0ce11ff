"""The recipe: one YAML file that says everything about a run, checked before anything starts."""

import difflib
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from models.checkpoints.local_folder import near_to
from pipeline.clean.config import CleanConfig
from pipeline.clean.screen import ScreenConfig
from pipeline.printable import cut
from shards.errors import UsageError
from shards.files.bounded_yaml import MOST_CHARACTERS, MOST_DEPTH, BoundedYamlError, parse_yaml
from shards.files.home import expand_home
from shards.files.regular import open_regular
from shards.inputs.names import ROLES, is_tar
from shards.inputs.shard import InputOptions
from shards.inputs.text import TextSource

# What a recipe must hold, and the flag that gives it.
FLAGS = {
    "input": ("input.urls", "--input"),
    "output": ("output", "--output"),
    "caption": ("caption.model", "--captioner"),
    "score": ("score.model", "--filter"),
}


_NO_RECIPE = "no recipe, which is YAML with a line for each key, such as `output: runs/first`"
_GIVE_INPUTS = ". Tars, and folders of them, are given with --input"
_PROBLEMS_SHOWN = 20
_SHOWN, _MESSAGE_SHOWN = 100, 300  # characters of a key, and of what is said of its value
_EXCERPT = reprlib.Repr()  # of a value that may be large, or stand for more than memory holds
_EXCERPT.maxlevel, _EXCERPT.maxstring, _EXCERPT.maxother = 3, _SHOWN, _SHOWN

# of the types of values, what people call them
_EXPECTED = {
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "string": "a text",
    "tuple": "a list, as in [a, b]",
    "list": "a list, as in [a, b]",
}
_UNION = re.compile(r"constrained-\w+|literal\[.*\]|int|float|str|bool")  # alternatives of a key
# sections that one kind of recipe alone has, and its command
_SECTIONS_OF = {
    ("web", "human"): "`capfilt bootstrap`",
    ("input", "caption"): "`capfilt clean`",
    ("data", "step"): "`capfilt pretrain` or `capfilt finetune`",
}

Kind = TypeVar("Kind", bound=BaseModel)


class RecipeError(UsageError):
    """A recipe that cannot be run, and what to change in it."""


def named_folder(name: str) -> str:
    """Return a folder or URL with its home folder put in; RecipeError for none at all."""
    if not name:
        raise RecipeError("expected a folder; an empty path names none")
    return expand_home(name)


Folder = Annotated[str, AfterValidator(named_folder)]


class RecipeSection(BaseModel):
    """A part of a recipe: it cannot be changed, and takes no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class InputConfig(RecipeSection):
    """What comes in: tars, folders of pictures, Parquet; patterns; local or any fsspec URL."""

    urls: tuple[str, ...] = Field(min_length=1)
    root: str | None = Field(None, description="shards are named by their path below it")
    text: str = Field(
        "txt",
        description="where texts stand: txt, json:FIELD (of a table: a column), an extension, none",
    )
    kind: Literal["auto", "tar", "folder", "parquet"] = Field(
        "auto", description="auto is what is there, if it is of one kind; folder: of pictures"
    )
    image: str | None = Field(None, description="the column of pictures, where Parquet has several")
    samples_per_shard: PositiveInt = Field(
        1_000, description="of a folder of pictures; of Parquet the least, by whole row groups"
    )

    @property
    def options(self) -> InputOptions:
        """How the inputs are read."""
        kind, text = None if self.kind == "auto" else self.kind, TextSource.parse(self.text)
        return InputOptions(kind, text, self.image, self.samples_per_shard)

    @field_validator("text")
    @classmethod
    def _check_text(cls, text: str) -> str:
        TextSource.parse(text)
        return text


class LimitsConfig(RecipeSection):
    """Shares of samples above which a run stops, once 1,000 samples are in."""

    rejected: float = Field(0.5, ge=0, le=1)
    not_finite: float = Field(0.01, ge=0, le=1)
    refused: float = Field(0.1, ge=0, le=1, description="of the texts, by their captioner")


class EngineConfig(RecipeSection):
    """Where the work runs; none of it changes the result."""

    kind: Literal["auto", "ray", "local"] = Field(
        "auto", description="ray where it is installed, else local"
    )
    address: str | None = Field(None, description="of a running Ray cluster")
    actors: PositiveInt | Literal["auto"] = Field(
        "auto", description="as many as the machines hold, as they come and go"
    )
    gpus_per_actor: NonNegativeFloat | Literal["auto"] = Field(
        "auto", description="1 where any machine has a GPU; 0 works on CPUs"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto refuses a GPU that torch cannot use"
    )
    forward_env: tuple[str, ...] = Field((), description="variables that workers need, by name")
    start_timeout_s: float = Field(600, gt=0, description="for the first machine to come")
    batch_size: PositiveInt | Literal["auto"] = Field(
        "auto", description="pictures in one pass of a model; 16 on a CPU, up to 256 on a GPU"
    )
    decode_threads: PositiveInt | Literal["auto"] = Field(
        "auto", description="in each actor; its CPUs less 2, and 2 at least"
    )
    stall_timeout_s: float = Field(600, gt=0, description="without a finished sample")

    @field_validator("gpus_per_actor")
    @classmethod
    def _check_gpus(cls, gpus: float | Literal["auto"]) -> float | Literal["auto"]:
        """Refuse what no machine can give: Ray shares one GPU in parts, or gives whole ones."""
        if gpus == "auto" or gpus == 0 or (gpus >= 1 and float(gpus).is_integer()):
            return gpus
        if gpus < 1 and abs(round(gpus, 4) - gpus) < 1e-12 and round(gpus, 4) > 0:
            return gpus
        raise ValueError("expected a part of one GPU (0.0001 or more), or a whole number of GPUs")


class Recipe(CleanConfig):
    """A cleaning run: what to do, from where to where, and on which machines."""

    recipe_version: Literal[1] = 1
    input: InputConfig
    candidates: str | None = Field(
        None, description="Parquet of more texts: key and text, and maybe shard and author"
    )
    output: Folder
    limits: LimitsConfig = LimitsConfig()
    engine: EngineConfig = EngineConfig()
    skip: str | None = Field(
        None, description="list of samples that need no model: RUN:VIEW, or a file of SHARD/KEY"
    )

    @model_validator(mode="after")
    def _is_patient(self) -> Self:
        """Let no wait for a server be taken for a worker that hangs."""
        longest_s = sum(section.longest_s for section in self.captioners)
        if longest_s >= self.engine.stall_timeout_s:
            raise ValueError(
                f"a batch's captions may be waited for {longest_s:g} s (twice caption.patience_s), "
                f"but engine.stall_timeout_s is {self.engine.stall_timeout_s:g}: lower the one, or "
                "raise the other"
            )
        return self

    @property
    def secrets(self) -> tuple[str, ...]:
        """The environment variables that workers need, those that hold a server's key, too."""
        keys = (name for section in self.captioners for name in section.secrets)
        return tuple(dict.fromkeys([*self.engine.forward_env, *keys]))


class ScreenRecipe(RecipeSection):
    """A run that only screens: of a recipe for cleaning, what comes before any model."""

    recipe_version: Literal[1] = 1
    input: InputConfig
    output: Folder
    screen: ScreenConfig = ScreenConfig()
    limits: LimitsConfig = LimitsConfig()
    engine: EngineConfig = EngineConfig()
    skip: str | None = None
    # what the cleaning will need: so that one recipe serves both
    seed: Any = None
    dtype: Any = None
    candidates: Any = None
    caption: Any = None
    score: Any = None
    judge: Any = None
    write: Any = None


def read_recipe(
    kind: type[Kind],
    path: Path | None,
    overrides: Mapping[str, Any],
    settings: Sequence[str] = (),
    where: str = "the command line",
) -> Kind:
    """Read a recipe file, lay overrides (dotted keys) and `a.b=c` settings over it, and check it.

    An override that is None was not given; `where` is said of a recipe that is no file. Raises
    RecipeError that names the file, the key, what was found, and the nearest key.
    """
    values: dict[str, Any] = (
        read_yaml(path, _GIVE_INPUTS if kind in (Recipe, ScreenRecipe) else "") if path else {}
    )
    typed = [(dotted, value) for dotted, value in overrides.items() if value is not None]
    for dotted, value in [*typed, *parse_settings(settings)]:
        _put(values, dotted, value)
    where = str(path) if path else where
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        _refuse_other_kind(kind, values, where)
        every = error.errors(include_url=False)
        within = [problem["loc"][:-1] for problem in every]  # a wrong member makes no list short
        problems = [p for p in every if p["type"] != "too_short" or p["loc"] not in within]
        lines = [_describe(kind, problem) for problem in problems[:_PROBLEMS_SHOWN]]
        if more := len(problems) - len(lines):
            lines.append(f"  and {more:,} more")
        raise RecipeError(f"the recipe of {where} cannot be run:\n" + "\n".join(lines)) from None


def parse_settings(settings: Sequence[str], option: str = "--set") -> list[tuple[str, Any]]:
    """Read `a.b=c` settings, whose values are YAML, as dotted keys and values."""
    return [_parse_setting(setting, option) for setting in settings]


@contextmanager
def as_recipe_errors() -> Iterator[None]:
    """Raise a ValueError of this block as an error of the recipe."""
    try:
        yield
    except ValueError as error:
        raise RecipeError(str(error)) from None


def dump_recipe(recipe: BaseModel) -> str:
    """Write a recipe with every key resolved."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _other_kind(path: Path) -> str | None:
    """Say what stands in a recipe's place, where its name tells; None for what may be one."""
    if path.is_dir():
        return "a folder"
    if is_tar(path.name):
        return "a tar"
    ending = path.suffix.lower().removeprefix(".")
    return "a picture" if ROLES.get(ending) in ("image", "foreign") else None


def read_yaml(path: Path, advice: str = "") -> dict[str, Any]:
    """Read the keys of a recipe file as they stand there; `advice` is for what is no recipe."""
    try:
        if other := path.exists() and _other_kind(path):
            raise RecipeError(f"{path} is {other}, {_NO_RECIPE}{advice}")
        values = parse_yaml(_read_text(path))
    except FileNotFoundError:
        near = near_to(path, ())
        raise RecipeError(f"no recipe at {path}{'.' if near else ''}{near}") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{path} is no text file, {_NO_RECIPE}{advice}") from None
    except (OSError, BoundedYamlError) as error:
        raise RecipeError(f"{path} cannot be read as a recipe: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        kinds: list[tuple[type, str]] = [(str, "a text"), (list, "a list")]
        found = next((name for kind, name in kinds if isinstance(values, kind)), repr(values))
        raise RecipeError(f"{path} holds {found}, {_NO_RECIPE}{advice}")
    return values


def _parse_setting(setting: str, option: str) -> tuple[str, Any]:
    dotted, equals, value = setting.partition("=")
    if not equals or not dotted:
        raise RecipeError(
            f"{option} {cut(setting, _SHOWN)}: expected NAME=VALUE, as in "
            + ("--set caption.top_p=0.95" if option == "--set" else f"{option} report=true")
        )
    try:
        return dotted, parse_yaml(value)
    except BoundedYamlError as error:
        shown = f"{option} {cut(setting, _SHOWN)}"
        raise RecipeError(f"{shown}: the value is not YAML: {error}") from None


def _read_text(path: Path) -> str:
    with open_regular(path) as file:
        data = file.read(MOST_CHARACTERS + 1)
    if len(data) > MOST_CHARACTERS:
        raise BoundedYamlError(f"it is longer than {MOST_CHARACTERS:,} bytes")
    return data.decode("utf-8")


def _put(values: dict[str, Any], dotted: str, value: object) -> None:
    *sections, key = dotted.split(".")
    if len(sections) > MOST_DEPTH:
        raise RecipeError(f"{cut(dotted, _SHOWN)}: deeper than {MOST_DEPTH} sections")
    for section in sections:
        inner = values.get(section, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"{dotted}: {section} is a value here, not a section")
        values[section] = dict(inner)  # an alias may have it elsewhere, too
        values = values[section]
    values[key] = value


def _refuse_other_kind(kind: type[BaseModel], values: Mapping[str, Any], where: str) -> None:
    """Say which command a recipe is for, if not one of its own sections but another's is in it."""
    for sections, command in _SECTIONS_OF.items():
        if set(sections) <= values.keys() and not set(sections) & kind.model_fields.keys():
            raise RecipeError(
                f"the recipe of {where} is for {command}: it has {' and '.join(sections)}"
            )


def _describe(kind: type[BaseModel], problem: Mapping[str, Any]) -> str:
    path = [cut(str(part), _SHOWN) or "" for part in problem["loc"]]
    path = [part for part in path if not part.startswith("kind=")]
    dotted = ".".join(path)
    if problem["type"] == "missing":
        known = FLAGS if kind in (Recipe, ScreenRecipe) else {"output": FLAGS["output"]}
        key, flag = dotted, f"--set {dotted}=…"
        for section, whole in known.items():
            if dotted in (section, whole[0]):
                key, flag = whole
        return f"  {key}: missing. Add it to the recipe, or give {flag}"
    if problem["type"] == "extra_forbidden":
        names = ".".join(part for part in path if not part.isdigit())  # no places in a list
        near = difflib.get_close_matches(names, _all_keys(kind), n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        return f"  {dotted}: there is no such key.{hint}"
    dotted = ".".join(part for part in path if not _UNION.fullmatch(part))
    message = cut(_in_our_words(problem, dotted), _MESSAGE_SHOWN)
    if not dotted:  # of sections that do not fit together, which the message names
        return f"  {message}"
    return f"  {dotted}: {message}, found {cut(_EXCERPT.repr(problem['input']), _MESSAGE_SHOWN)}"


def _in_our_words(problem: Mapping[str, Any], dotted: str) -> str:
    """Write what pydantic found in the words of a recipe; its own, where there are no others."""
    message: str = problem["msg"]
    if problem["type"] in ("dict_type", "model_type", "model_attributes_type"):
        return f"it is a section; give a key of it, as in {dotted}.NAME=VALUE"
    if problem["type"] == "too_short":
        return "expected one at least"
    for ending, expected in _EXPECTED.items():
        if problem["type"] in (f"{ending}_type", f"{ending}_parsing", f"{ending}_from_float"):
            return f"expected {expected}"
    return message.removeprefix("Value error, ").replace("Input should be", "expected")


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        for section in _sections(field.annotation):
            keys += _all_keys(section, f"{prefix}{name}.")
    return keys


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401 - any type
    """Find the sections that a type is, may be, or is a list of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)
