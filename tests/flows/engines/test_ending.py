"""A process ends as it is told: by the interpreter, or at once."""

import subprocess
import sys

import pytest

from flows.engines.ending import leave

ENDS = """
import atexit
from flows.engines.ending import end_at_once, leave
atexit.register(print, "the interpreter has ended")
print("said")
{before}
leave(7{how})
"""


def test_a_code_is_raised_as_ever() -> None:
    with pytest.raises(SystemExit) as ended:
        leave(3)
    assert ended.value.code == 3


@pytest.mark.parametrize(
    ("before", "how", "out"),
    [
        ("", "", "said\nthe interpreter has ended\n"),
        ("end_at_once()", "", "said\n"),
        ("", ", at_once=True", "said\n"),
    ],
)
def test_at_once_waits_for_nothing_but_what_was_said(before: str, how: str, out: str) -> None:
    script = ENDS.format(before=before, how=how)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (7, out)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_behind_the_end_changes_no_code(name: str) -> None:
    script = f"""
import atexit, signal
from flows.engines.ending import leave, settle
print("said")
atexit.register(signal.raise_signal, signal.{name})
settle(3)
leave(3)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "said\n", "")
