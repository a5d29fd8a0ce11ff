"""The scorer that a reader may copy does what its page says."""

import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.test_lengths import ROOT


def test_it_compares_a_text_with_the_light_of_a_picture(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (51, 51, 51)).save(tmp_path / "night.png")
    texts = ["a dark night", "bright snow", "a dog"]
    told = subprocess.run(
        [sys.executable, ROOT / "examples/scorer.py", "night.png", *texts],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.splitlines() == [
        "a dark night {'light': 0.8, 'words': 2.0}",
        "bright snow {'light': 0.2, 'words': 2.0}",
        "a dog {'light': 0.5, 'words': 0.0}",
    ]
