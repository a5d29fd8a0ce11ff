"""What the configs of all verbs have in common: they are sections of recipes."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A section of a recipe, which does not change; a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
