"""The stages of a round, by name."""

import subprocess
import sys
from typing import get_args

from flows.rounds.names import STAGES, Stage

LOADED = """
import sys
before = set(sys.modules)
import flows.rounds.names
print(*sorted({name.partition(".")[0] for name in sys.modules.keys() - before}))
"""


def test_each_stage_is_done_once() -> None:
    assert sorted(STAGES) == sorted(get_args(Stage))


def test_names_load_no_library() -> None:
    script = [sys.executable, "-c", LOADED]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded - sys.stdlib_module_names == {"flows"}
