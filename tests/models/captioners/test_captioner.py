"""What every captioner keeps, whichever model is behind it."""

import pickle
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models.blip.config import Role
from models.captioners.captioner import Captioner, Refusal
from models.captioners.config import BlipCaptionerConfig, TransformersCaptionerConfig
from models.captioners.opening import check_captioner, open_captioner
from tests.support.chat_server import Settings
from tests.support.tiny_guests import QUESTION

SHAPES = [(1, 1), (400, 3), (3, 400), (64, 48)]


@pytest.fixture(params=["blip", "transformers", "endpoint"])
def section(
    request: pytest.FixtureRequest,
    folders: Mapping[Role, Path],
    guest_folder: Callable[[str], Path],
    settings: Settings,
) -> Any:
    if request.param == "blip":
        return BlipCaptionerConfig(model=str(folders["captioner"]))
    if request.param == "transformers":
        return TransformersCaptionerConfig(
            kind="transformers", model=str(guest_folder("llava")), prompt=QUESTION
        )
    return settings()


def test_any_picture_gets_as_many_captions_as_asked(section: Any) -> None:
    captioner: Captioner = open_captioner(section, seed=1, dtype="fp32")
    pictures = [Image.new(mode, size) for size in SHAPES for mode in ("RGB", "L", "RGBA", "P")]
    with ThreadPoolExecutor(4) as threads:
        batch = list(threads.map(captioner.prepare, pictures))
    assert all(prepared.held_bytes > 0 for prepared in batch)
    written = captioner.caption(batch, [str(n) for n in range(len(batch))], 2)
    assert [len(row) for row in written if isinstance(row, list)] == [2] * len(batch)
    rows = [row for row in written if not isinstance(row, Refusal)]
    assert all(text.text == text.text.strip() for row in rows for text in row)
    assert {text.truncated for row in rows for text in row} <= {True, False, None}


def test_the_digest_is_known_before_the_weights_are_read(section: Any) -> None:
    before = check_captioner(section)
    assert before.digest == open_captioner(section).digest
    assert len(bytes.fromhex(before.digest)) == 32


def test_what_goes_to_other_processes_can(section: Any) -> None:
    told = check_captioner(section)
    assert pickle.loads(pickle.dumps((section, told))) == (section, told)
