"""The models that a run was made with, as its recipe and its identity record them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shards.files.bounded_yaml import BoundedYamlError, parse_yaml
from shards.run.run import Run

_SECTIONS = {"captioner": "caption", "filter": "score"}


@dataclass(frozen=True, slots=True)
class RunModel:
    """A model's folder or hub id, its digest, and the token limit that it was run with."""

    model: str
    revision: str | None
    digest: str
    max_tokens: int | None

    @property
    def name(self) -> str:
        """The model's name as it may be published: a hub id, or a folder's last part."""
        return Path(self.model).name if Path(self.model).is_absolute() else self.model


def run_model(run: Run, role: Literal["captioner", "filter"]) -> RunModel:
    """Read what a run records of its captioner or filter; what is missing is empty."""
    section = _SECTIONS[role]
    try:
        recipe = parse_yaml(run.store.read("recipe.yaml").decode("utf-8", "replace"))
    except (FileNotFoundError, BoundedYamlError):
        recipe = None
    config = recipe.get(section) if isinstance(recipe, dict) else None
    config = config if isinstance(config, dict) else {}
    identity = run.identity.get(section) or {}
    return RunModel(
        str(config.get("model") or role),
        config.get("revision"),
        str(identity.get("digest") or ""),
        identity.get("max_tokens"),
    )
