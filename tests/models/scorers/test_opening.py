"""Scorers of every kind are opened in one place."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from models.blip.config import Role
from models.checkpoints.locate import CheckpointError
from models.scorers.blip import BlipScorer
from models.scorers.config import BlipScorerConfig, DualEncoderConfig
from models.scorers.dual_encoder import DualEncoder
from models.scorers.opening import check_scorer, open_scorer


def test_the_kind_decides(
    folders: Mapping[Role, Path], guest_folder: Callable[[str], Path]
) -> None:
    assert isinstance(open_scorer(BlipScorerConfig(model=str(folders["filter"]))), BlipScorer)
    guest = DualEncoderConfig(kind="dual_encoder", name="clip", model=str(guest_folder("clip")))
    assert isinstance(open_scorer(guest), DualEncoder)


def test_a_folder_that_is_not_there() -> None:
    for config in (
        BlipScorerConfig(model="/nowhere/at/all"),
        DualEncoderConfig(kind="dual_encoder", name="clip", model="/nowhere/at/all"),
    ):
        for ask in (check_scorer, open_scorer):
            with pytest.raises(CheckpointError, match="there is no checkpoint folder /nowhere"):
                ask(config)
