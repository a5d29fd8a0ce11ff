"""The recipe of a study: its world, and sections of the recipes that its stages run."""

from typing import Any

from pydantic import Field

from flows.recipe import RecipeSection
from pipeline.toy.world import Kinds

Section = dict[str, Any]


class WorldConfig(RecipeSection):
    """How many pairs of each set there are, and how noisy the web is."""

    web: int = 6_000
    human: int = 1_000
    held_out: int = 400
    noise: float = 0.45
    kinds: Kinds = 4
    image_px: int = 32


class StudyRecipe(RecipeSection):
    """The study: its world, and sections of the recipes that its stages run."""

    world: WorldConfig = WorldConfig()
    pretrain: Section
    captioner: Section
    filter: Section
    captions: Section = Field(default_factory=dict, description="as negatives: `own mistakes`")
    clean: Section = Field(default_factory=dict)
