"""Ctrl-C in the first moments of a command."""

import signal
import subprocess
import sys

import pytest

STOPPED = 128 + signal.SIGINT


@pytest.mark.parametrize(
    ("before", "code", "said"),
    [
        ("", STOPPED, "capfilt: stopped by Ctrl-C\n"),
        ("early.over()", 7, ""),
        ("signal.signal(signal.SIGINT, signal.SIG_IGN)", 0, ""),
    ],
)
def test_ctrl_c_ends_without_a_traceback_until_it_is_over(
    before: str, code: int, said: str
) -> None:
    script = f"""
import signal, sys
from flows.engines import early
{before}
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    sys.exit(7)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, said)


def test_what_ignores_ctrl_c_goes_on_to() -> None:
    script = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from flows.engines import early
signal.raise_signal(signal.SIGINT)
early.over()
signal.raise_signal(signal.SIGINT)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_commands_leave_ctrl_c_to_those_who_call_them() -> None:
    script = "import signal, flows.cli; print(signal.getsignal(signal.SIGINT).__name__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "default_int_handler\n"
