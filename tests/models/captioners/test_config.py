"""Sections of recipes about captioners: told apart by kind, BLIP's as they always were."""

import re
import subprocess
import sys
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from models.captioners.config import (
    BlipCaptionerConfig,
    CaptionerConfig,
    EndpointCaptionerConfig,
    TransformersCaptionerConfig,
)
from models.decoding.config import Decoding
from models.scorers.config import ScorerConfig
from tests.test_lengths import ROOT

READ = TypeAdapter(CaptionerConfig).validate_python
GUEST = {"kind": "transformers", "model": "m"}
SERVER = {"kind": "endpoint", "base_url": "http://127.0.0.1:8000/v1/", "model": "m"}


def test_a_section_without_a_kind_is_blips() -> None:
    assert isinstance(READ({"model": "m"}), BlipCaptionerConfig)
    assert isinstance(READ(GUEST), TransformersCaptionerConfig)
    assert isinstance(READ(SERVER), EndpointCaptionerConfig)


def test_a_written_section_is_read_again_as_it_was() -> None:
    for section in ({"model": "m"}, GUEST, SERVER):
        config = READ(section)
        assert READ(config.model_dump(mode="json")) == config


def test_a_kind_that_there_is_not() -> None:
    with pytest.raises(ValidationError, match="kind should be blip, transformers or endpoint"):
        READ({"kind": "florence", "model": "m"})


@pytest.mark.parametrize("settings", [{}, {"top_p": 0.8, "candidates": 3}, {"method": "beam"}])
def test_blips_identity_is_what_recipes_before_kinds_had(settings: dict[str, Any]) -> None:
    before = Decoding.model_validate({k: v for k, v in settings.items() if k != "candidates"})
    identity = READ({"model": "m", **settings}).identity()
    assert identity == before.model_dump() | {"candidates": settings.get("candidates", 1)}


def test_a_name_of_its_own_is_part_of_blips_identity() -> None:
    assert READ({"model": "m", "name": "second"}).identity()["name"] == "second"


def test_what_texts_are_called_is_no_part_of_the_digest() -> None:
    plain = READ(GUEST).digest_of("content")
    assert READ({**GUEST, "name": "second", "candidates": 3}).digest_of("content") == plain
    assert READ({**GUEST, "prompt": "Why?"}).digest_of("content") != plain


def test_where_a_model_lies_is_no_part_of_its_identity() -> None:
    for section in (GUEST, SERVER, {"model": "m"}):
        assert "model" not in READ(section).identity()
    elsewhere = {**SERVER, "base_url": "https://host/v1", "concurrency": 2, "key_env": "KEY"}
    assert READ(elsewhere).identity() == READ(SERVER).identity()
    assert READ({**SERVER, "prompt": "Why?"}).identity() != READ(SERVER).identity()
    assert READ({**GUEST, "max_pixels": 4096}).identity() != READ(GUEST).identity()


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({**GUEST, "method": "greedy", "candidates": 2}, "greedy decoding writes at most 1"),
        ({**GUEST, "method": "beam", "beams": 2, "candidates": 3}, "beam decoding writes at most"),
        ({**GUEST, "min_tokens": 9, "max_tokens": 8}, "min_tokens 9 is more than max_tokens 8"),
        ({**GUEST, "generation": "folder", "top_p": 0.5}, "leaves no room for top_p"),
        ({**SERVER, "candidates": 2, "temperature": 0}, "temperature 0 writes one text"),
        ({**SERVER, "base_url": "127.0.0.1:8000"}, "expected http://HOST:PORT/v1"),
        ({**SERVER, "base_url": "http://me:pw@host/v1"}, "a key is given by key_env"),
        ({"model": "m", "method": "greedy", "candidates": 2}, "greedy decoding writes at most 1"),
        ({**GUEST, "beam": 3}, "Extra inputs"),
    ],
)
def test_what_does_not_go_together(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        READ(section)


def test_what_the_folder_decides_is_no_part_of_the_identity() -> None:
    identity = READ({**GUEST, "generation": "folder"}).identity()
    assert "top_p" not in identity
    assert identity["max_tokens"] == READ(GUEST).identity()["max_tokens"]


def test_the_sections_of_the_page_about_guests_are_read() -> None:
    page = (ROOT / "docs/extend.md").read_text(encoding="utf-8")
    lines = re.findall(r"^(?:caption|score): \{.*\}$", page, re.MULTILINE)
    kinds = {"caption": READ, "score": TypeAdapter(ScorerConfig).validate_python}
    sections = [yaml.safe_load(line).popitem() for line in lines]
    assert [kinds[name](section).kind for name, section in sections] == [
        "transformers",
        "endpoint",
        "dual_encoder",
    ]


def test_sections_are_read_without_torch() -> None:
    code = (
        "import models.captioners.config, models.scorers.config, sys; print('torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"
