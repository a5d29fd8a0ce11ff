"""What the sections of guests have in common."""

import pytest
from pydantic import ValidationError

from models.guests.config import GuestConfig


def test_a_section_does_not_change_and_knows_its_keys() -> None:
    config = GuestConfig(model="m")
    with pytest.raises(ValidationError, match="frozen"):
        config.model = "n"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        GuestConfig(model="m", max_pixel=4096)  # type: ignore[call-arg]


def test_the_digest_is_of_the_model_and_of_how_it_is_used() -> None:
    plain = GuestConfig(model="m").digest_of("content")
    assert GuestConfig(model="elsewhere").digest_of("content") == plain
    assert GuestConfig(model="m").digest_of("other content") != plain
    assert GuestConfig(model="m", image_backend="torchvision").digest_of("content") != plain


def test_how_pictures_are_made_ready_is_part_of_the_identity() -> None:
    plain = GuestConfig(model="m").identity()
    assert GuestConfig(model="elsewhere", revision="r").identity() == plain
    assert GuestConfig(model="m", max_pixels=4096).identity() != plain
    assert GuestConfig(model="m", image_backend="torchvision").identity() != plain
