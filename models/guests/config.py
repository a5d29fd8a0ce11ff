"""What the configs of guest models have in common; no torch here, so that recipes read at once."""

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.checkpoints import locate

ImageBackend = Literal["pil", "torchvision"]
ImageFormat = Literal["jpeg", "png"]

_APART = {"name", "candidates"}  # of a recipe's section, what changes no single text
MAX_PIXELS = 1 << 20  # larger pictures cost time and memory, and hardly better a caption


class ModelConfig(BaseModel):
    """A section of a recipe about one model; a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = ""
    model: str

    @property
    def secrets(self) -> tuple[str, ...]:
        """The environment variables that it reads keys from."""
        return ()

    @property
    def most_at_once(self) -> int | None:
        """The pictures that a batch may have; None for as many as the engine says."""
        return None

    @property
    def longest_s(self) -> float:
        """The longest that it may wait for others in a batch."""
        return 0

    def look_for(self) -> None:
        """Raise an error for a model that is not there, as far as is seen at once."""

    def identity(self) -> dict[str, Any]:
        """Collect the settings that change the output; a model stands by its digest, not here."""
        return self.model_dump(mode="json", exclude={"model", "revision"})

    def digest_of(self, content: str) -> str:
        """Sum up a model and how it is used: SHA-256 in hex; what its texts are called is apart."""
        facts = {key: value for key, value in self.identity().items() if key not in _APART}
        return hashlib.sha256(json.dumps([content, facts], sort_keys=True).encode()).hexdigest()


class FolderConfig(ModelConfig):
    """A model of a folder of the Hugging Face kind, here or on the hub."""

    model: str = Field(description="a Hugging Face folder, or the id of one on the hub")
    revision: str | None = Field(None, description="of the hub; the newest if not given")

    def look_for(self) -> None:
        """Raise CheckpointError for a name that leads nowhere."""
        locate.find_here(self.model, self.revision)


class GuestConfig(FolderConfig):
    """A guest's folder, and how pictures are made ready for it."""

    max_pixels: int = Field(
        MAX_PIXELS, ge=1024, description="larger pictures are scaled down before the processor"
    )
    image_backend: ImageBackend = Field(
        "pil", description="what resizes; the two differ by a grey level or two"
    )
