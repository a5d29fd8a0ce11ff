"""Captioners of every kind are opened in one place."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from models.blip.config import Role
from models.captioners.blip import BlipCaptioner
from models.captioners.config import BlipCaptionerConfig, TransformersCaptionerConfig
from models.captioners.endpoint import EndpointCaptioner
from models.captioners.opening import check_captioner, open_captioner
from models.captioners.transformers import TransformersCaptioner
from models.checkpoints.locate import CheckpointError
from tests.support.chat_server import Settings


def test_the_kind_decides(
    folders: Mapping[Role, Path], guest_folder: Callable[[str], Path], settings: Settings
) -> None:
    blip = BlipCaptionerConfig(model=str(folders["captioner"]))
    guest = TransformersCaptionerConfig(kind="transformers", model=str(guest_folder("git")))
    for config, kind in (
        (blip, BlipCaptioner),
        (guest, TransformersCaptioner),
        (settings(), EndpointCaptioner),
    ):
        assert isinstance(open_captioner(config), kind)


def test_a_folder_that_is_not_there() -> None:
    for config in (
        BlipCaptionerConfig(model="/nowhere/at/all"),
        TransformersCaptionerConfig(kind="transformers", model="/nowhere/at/all"),
    ):
        for ask in (check_captioner, open_captioner):
            with pytest.raises(CheckpointError, match="there is no checkpoint folder /nowhere"):
                ask(config)
