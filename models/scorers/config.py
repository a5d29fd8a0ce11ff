"""Which scorer reads, and how: sections of recipes, told apart by `kind`.

A recipe without `kind` means BLIP, and its identity is what it was before there were others.
"""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from models.checkpoints import locate
from models.guests.config import FolderConfig, GuestConfig

_NAME = r"^[a-z][a-z0-9_]*$"


class BlipScorerConfig(FolderConfig):
    """BLIP's filter: itm, itm_logit and itc."""

    kind: Literal["blip"] = "blip"
    name: str = Field("blip", pattern=_NAME)
    model: str = Field(description="a Hugging Face BLIP folder, or the id of one on the hub")
    max_tokens: int = Field(35, ge=3, le=512, description="special tokens included")

    def look_for(self) -> None:
        """Raise CheckpointError for a name that leads nowhere, or to another family."""
        locate.look_for(self.model, self.revision)

    def identity(self) -> dict[str, Any]:
        """Leave out what recipes did not have when BLIP was the only scorer."""
        usual = {"kind"} | ({"name"} if self.name == "blip" else set())
        return {key: value for key, value in super().identity().items() if key not in usual}


class DualEncoderConfig(GuestConfig):
    """CLIP, SigLIP or what is built like them: `cosine`, and `prob` where the family has one."""

    kind: Literal["dual_encoder"]
    name: str = Field(pattern=_NAME, description="its scores are NAME.cosine and NAME.prob")
    max_tokens: int | None = Field(
        None, ge=3, description="special tokens included; as many as the model reads if not given"
    )
    lowercase: bool = Field(
        False, description="as SigLIP 2 was trained; its own processor does not always do it"
    )


def _kind_of(section: Any) -> str:  # noqa: ANN401 - whatever a recipe holds
    kind = section.get("kind", "blip") if isinstance(section, dict) else None
    return f"kind={kind or getattr(section, 'kind', 'blip')}"


def _is_list(section: Any) -> str:  # noqa: ANN401 - whatever a recipe holds
    return "kind=list" if isinstance(section, list | tuple) else "kind=one"


ScorerConfig = Annotated[
    Annotated[BlipScorerConfig, Tag("kind=blip")]
    | Annotated[DualEncoderConfig, Tag("kind=dual_encoder")],
    Discriminator(
        _kind_of,
        custom_error_type="scorer_kind",
        custom_error_message="kind should be blip or dual_encoder",
    ),
]

ScorerConfigs = Annotated[
    Annotated[ScorerConfig, Tag("kind=one")]
    | Annotated[tuple[ScorerConfig, ...], Field(min_length=1), Tag("kind=list")],
    Discriminator(_is_list),
]
