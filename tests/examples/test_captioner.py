"""The captioner that a reader may copy does what its page says."""

import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.test_lengths import ROOT


def test_it_names_the_colours_of_a_picture(tmp_path: Path) -> None:
    picture = Image.new("RGB", (30, 20), (230, 30, 30))
    picture.paste((20, 60, 210), (0, 0, 9, 20))
    picture.save(tmp_path / "flag.png")
    told = subprocess.run(
        [sys.executable, ROOT / "examples/captioner.py", "flag.png"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.splitlines() == [
        "flag.png",
        "  a picture with much red",
        "  a picture with much blue",
    ]
