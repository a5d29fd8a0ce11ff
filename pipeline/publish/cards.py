"""Model cards and dataset cards, in the form of the Hugging Face hub.

What stands in them comes from recipes, paths and data, and may be hostile: in the YAML head it is
quoted by the YAML library, in the text it stands between backticks, on one line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from models.blip.config import Role
from models.checkpoints import checkpoint
from pipeline.printable import cut, visible
from shards.files.durable import write_whole

if TYPE_CHECKING:
    from jinja2 import Environment

NAME = "README.md"
_MOST_CHARACTERS = 200
_LOADED_BY: dict[Role, tuple[str, str]] = {  # transformers' class, the hub's name of the task
    "captioner": ("BlipForConditionalGeneration", "image-to-text"),
    "filter": ("BlipForImageTextRetrieval", "zero-shot-image-classification"),
    "vqa": ("BlipForQuestionAnswering", "visual-question-answering"),
}
_SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a card says of a checkpoint; what is not known is left out of it."""

    name: str
    role: Role
    digest: str
    image_px: int
    parameters: int
    start: str | None = None
    sources: Sequence[Mapping[str, Any]] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    losses: Mapping[str, float] = field(default_factory=dict)


def write_model_card(folder: Path, facts: ModelFacts) -> Path:
    """Write a checkpoint's card into its folder, whole or not at all; return its path."""
    loaded_by, task = _LOADED_BY.get(facts.role, (None, None))
    head: dict[str, Any] = {"library_name": "transformers" if loaded_by else "capfilt"}
    head |= {"pipeline_tag": task} if task else {}
    head |= {"tags": ["blip", "capfilt", facts.role], "language": ["en"]}
    write_whole(folder / NAME, _render("model.md", head, facts=facts, loaded_by=loaded_by))
    return folder / NAME


def facts_of(folder: Path, **fields: Any) -> ModelFacts:  # noqa: ANN401 - fields of ModelFacts
    """Read what a checkpoint says of itself, and add other fields of its facts."""
    info = checkpoint.info(folder)
    name = fields.pop("name", folder.parent.name if folder.name == "model" else folder.name)
    return ModelFacts(name, info.role, info.digest, info.image_size, info.parameters, **fields)


def dataset_card(about: Mapping[str, Any]) -> str:
    """Write the card of a clean set.

    `about` has `form` (run, webdataset, parquet or index), `statistics`, `models`, `thresholds`,
    `fingerprint`, `snapshot`, `view`, `rows`, `images` and `files`; of an index also `without_url`,
    and `dropped` where it lists that.
    """
    size = next((n for n in _SIZES if about["rows"] < n), None)
    below = {1_000: "n<1K"} | {n: f"{_short(n // 10)}<n<{_short(n)}" for n in _SIZES[1:]}
    head: dict[str, Any] = {
        "task_categories": ["image-to-text", "text-to-image"],
        "tags": ["capfilt", "blip", "image-text-pairs"],
        "size_categories": [below[size] if size else "n>1T"],
    }
    if about["files"]:
        files = [{"split": "train", "path": about["files"]}]
        head["configs"] = [{"config_name": "default", "data_files": files}]
    return _render("dataset.md", head, about=about, statistics=about["statistics"])


def _short(count: int) -> str:
    for sign, unit in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= unit:
            return f"{count // unit}{sign}"
    return str(count)


def _render(template: str, head: Mapping[str, Any], **values: object) -> str:
    front = yaml.safe_dump(dict(head), sort_keys=False, allow_unicode=True)
    body = _environment().get_template(template).render(**values)
    return f"---\n{front}---\n\n{body.strip()}\n"


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=False,  # noqa: S701 - Markdown, where `code` makes values harmless
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"code": _code, "count": "{:,}".format, "share": "{:.1%}".format}
    return environment


def _code(value: object) -> str:
    """Show a value between backticks, on one line, so that nothing in it is Markdown or HTML."""
    text = visible(cut(str(value), _MOST_CHARACTERS) or "").replace("`", "'").replace("|", "¦")
    return f"`{text}`" if text.strip() else "(empty)"
