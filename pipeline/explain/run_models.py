"""The models that a run was made with, as its recipe and its identity record them."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from shards.files.bounded_yaml import BoundedYamlError, parse_yaml
from shards.run.run import Run

_SECTIONS = {"captioner": "caption", "filter": "score"}
_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class RunModel:
    """A model's folder or hub id, its digest, and the token limit that it was run with."""

    model: str
    revision: str | None
    digest: str
    max_tokens: int | None
    apart: bool = False  # its scores are no columns of the texts

    @property
    def name(self) -> str:
        """The model's name as it may be published: a hub id, or a folder's last part."""
        return Path(self.model).name if Path(self.model).is_absolute() else self.model


def run_models(run: Run, role: Literal["captioner", "filter"]) -> dict[str, RunModel]:
    """Read what a run records of its captioners or scorers, by the role, and their names if many.

    What is missing is empty.
    """
    section = _SECTIONS[role]
    try:
        recipe = parse_yaml(run.store.read("recipe.yaml").decode("utf-8", "replace"))
    except (FileNotFoundError, BoundedYamlError):
        recipe = None
    configs = _as_list(recipe.get(section) if isinstance(recipe, dict) else None)
    identities = _as_list(run.identity.get(section))
    made = [
        _read(role, config, identity)
        for config, identity in zip_longest(configs, identities, fillvalue=_NOTHING)
    ]
    if len(made) == 1:
        return {role: made[0]}
    names = [config.get("name", number) for number, config in enumerate(configs, 1)]
    return {f"{role} {name}": model for name, model in zip(names, made, strict=False)}


def run_model(run: Run, role: Literal["captioner", "filter"]) -> RunModel:
    """Read what a run records of its first captioner, or of the filter that gave its itm."""
    models = list(run_models(run, role).values())
    if role == "filter":
        models = [model for model in models if not model.apart] or models
    return models[0]


def _read(role: str, config: Mapping[str, Any], identity: Mapping[str, Any]) -> RunModel:
    return RunModel(
        str(config.get("model") or role),
        config.get("revision"),
        str(identity.get("digest") or ""),
        identity.get("max_tokens"),
        "scores" in identity,
    )


def _as_list(section: Any) -> list[Mapping[str, Any]]:  # noqa: ANN401 - whatever was written
    sections = section if isinstance(section, list) and section else [section]
    return [each if isinstance(each, dict) else _NOTHING for each in sections]
