"""The command as a process: how it ends when it is told to, and what it says of itself."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.cli import ENVIRONMENT
from tests.support.driving import CAPFILT, InProcess

# A command that begins, says so, and lasts.
LASTING = """
import signal, sys, time
from flows import cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
@cli.app.command()
def last():
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        print("released")
sys.argv = ["capfilt", "last"]
cli.main()
"""


# One that fails, with something that waits for the interpreter's own end.
FAILING = """
import atexit, sys
from flows import cli
from flows.engines.ending import end_at_once
from flows.engines.engine import EngineError
atexit.register(print, "the interpreter has ended")
@cli.app.command()
def last(lost: bool = False):
    if lost:
        end_at_once()
    raise EngineError("Ray is gone")
cli.main()
"""


@pytest.mark.parametrize(
    ("flag", "out"), [("--lost", ""), ("--no-lost", "the interpreter has ended\n")]
)
def test_native_threads_of_a_lost_cluster_are_not_waited_for(flag: str, out: str) -> None:
    command = [sys.executable, "-c", FAILING, "last", flag]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (1, out, "capfilt: Ray is gone\n")


@pytest.mark.parametrize(
    ("sent", "code", "name"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")]
)
def test_a_signal_ends_it_after_what_it_holds_is_released(
    sent: signal.Signals, code: int, name: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LASTING],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (
        code,
        "released\n",
        f"capfilt: stopped by {name}\n",
    )


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['capfilt', '--help']\n"
        "from flows.cli import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'transformers', 'ray', 'prefect'} & sys.modules.keys()"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert time.monotonic() - began < 20  # half a second; a busy machine takes longer


def test_every_command_has_a_help_of_80_columns() -> None:
    environment = os.environ | {"COLUMNS": "80"}

    def help_of(*command: str) -> str:
        done = subprocess.run(
            [CAPFILT, *command, "--help"],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
        )
        return done.stdout

    shown = help_of()
    commands = re.findall(r"^│ ([a-z]+) ", shown, re.MULTILINE)
    assert len(commands) == 26
    assert max(map(len, shown.splitlines())) <= 80


def test_libraries_call_nobody_unless_the_user_says_so(
    capfilt: InProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "0")
    assert capfilt.run("stats", tmp_path / "nowhere").returncode == 2
    assert os.environ["DO_NOT_TRACK"] == "1"
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "0"


def test_a_command_that_is_none_is_one_message(capfilt: InProcess) -> None:
    done = capfilt.run("claen")
    assert done.returncode == 2
    assert done.stderr.startswith("capfilt: No such command 'claen'")
