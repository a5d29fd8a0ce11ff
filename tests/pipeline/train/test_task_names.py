"""The names of tasks: a command's help needs them at once."""

import subprocess
import sys

LOADED = """
import sys
import pipeline.train.task_names
print(sorted({"torch", "transformers", "pydantic", "pyarrow"} & sys.modules.keys()))
"""


def test_the_names_need_no_library() -> None:
    assert subprocess.check_output([sys.executable, "-c", LOADED], text=True) == "[]\n"
