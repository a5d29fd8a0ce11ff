"""Sections of recipes about scorers: told apart by kind, BLIP's as they always were."""

import pytest
from pydantic import TypeAdapter, ValidationError

from models.scorers.config import BlipScorerConfig, DualEncoderConfig, ScorerConfig

READ = TypeAdapter(ScorerConfig).validate_python
GUEST = {"kind": "dual_encoder", "name": "siglip2", "model": "m"}


def test_a_section_without_a_kind_is_blips() -> None:
    assert isinstance(READ({"model": "m"}), BlipScorerConfig)
    assert isinstance(READ(GUEST), DualEncoderConfig)
    with pytest.raises(ValidationError, match="kind should be blip or dual_encoder"):
        READ({"kind": "clip", "model": "m"})


def test_a_written_section_is_read_again_as_it_was() -> None:
    for section in ({"model": "m"}, GUEST):
        assert READ(READ(section).model_dump(mode="json")) == READ(section)


def test_blips_identity_is_what_recipes_before_kinds_had() -> None:
    assert READ({"model": "m", "max_tokens": 30}).identity() == {"max_tokens": 30}
    assert READ({"model": "m", "name": "second"}).identity()["name"] == "second"


def test_how_a_text_is_read_is_part_of_the_identity() -> None:
    plain = READ(GUEST).identity()
    assert READ({**GUEST, "model": "elsewhere"}).identity() == plain
    for change in ({"lowercase": True}, {"max_tokens": 16}, {"name": "other"}):
        assert READ({**GUEST, **change}).identity() != plain


def test_a_name_is_one_word() -> None:
    with pytest.raises(ValidationError, match="String should match pattern"):
        READ({**GUEST, "name": "SigLIP 2"})
