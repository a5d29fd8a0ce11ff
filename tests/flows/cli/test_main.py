"""The command as a process: how it ends when it is told to, and what it says of itself."""

import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from flows.cli import ENVIRONMENT
from tests.support.driving import CAPFILT, InProcess
from tests.support.toy_run import write_tar

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


# Each names something that is not there, or cannot be; run one after another, in one process.
MISTYPED = """
import sys, time
from flows.cli import main
HEAVY = {"torch", "transformers", "ray", "prefect"}
MODELS = ["--captioner=tiny-captioner", "--filter=tiny-filter", "--output=out"]
for command, wanted in (
    (["clean", *MODELS, "--input=nothere"], "nothere"),
    (["clean", *MODELS, "--input=.", "--part=3/2"], "1 <= i <= n"),
    (["clean", *MODELS, "--input=.", "--set=judge.treshold=1"], "judge.threshold"),
    (["clean", *MODELS, "--input=.", "--filter=./nofilter"], "nofilter"),
    (["clean", *MODELS, "--input=there", "--address=ray://127.0.0.1:9"], "Ray's client"),
    (["clean", *MODELS, "--input=there", "--address=127.0.0.1:9"], "no Ray cluster answers"),
    (["caption", "nothere.jpg"], "nothere.jpg: no such file"),
    (["match", "nothere.jpg", "a dog"], "nothere.jpg: no such file"),
    (["ask", "nothere.jpg", "what?"], "nothere.jpg: no such file"),
    (["attend", "there/a.tar", "a dog", "--model=./nomodel"], "nomodel"),
    (["watch", "nothere.mp4", "--text=a dog"], "nothere.mp4: no such file"),
    (["search", "nothere", "--text=a dog"], "nothere holds no index"),
    (["index", "nothere", "--to=out"], "nothere"),
    (["export", "nothere", "--to=out"], "nothere holds no run"),
    (["report", "nothere"], "nothere holds no run"),
    (["evaluate", "retrieval", "tiny-filter", "nothere"], "nothere"),
    (["evaluate", "filter", "tiny-filter", "nothere", "--label=a"], "nothere"),
    (["evaluate", "vqa", "./nomodel", "--annotations=nothere.json"], "nothere.json is no file"),
    (["checkpoint", "info", "./nomodel"], "nomodel"),
):
    sys.argv = ["capfilt", *command]
    print("BEGIN", wanted, file=sys.stderr)
    try: main()
    except SystemExit as ended: assert ended.code == 2, command
    assert not HEAVY & sys.modules.keys(), (command, HEAVY & sys.modules.keys())
"""


def test_what_is_mistyped_is_told_before_libraries_of_seconds_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    write_tar(tmp_path / "there" / "a.tar", {"a.txt": b"a dog"})
    command = [sys.executable, "-c", MISTYPED]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    for told in done.stderr.split("BEGIN ")[1:]:
        wanted, _, message = told.partition("\n")
        assert wanted in message, told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_has_two_names(capfilt: InProcess, flag: str) -> None:
    done = capfilt.run("clean", flag)
    assert (done.returncode, done.stderr) == (0, "")
    assert "capfilt clean recipe.yaml --part 2/8" in done.stdout


def test_it_says_its_version(capfilt: InProcess) -> None:
    done = capfilt.run("--version")
    assert (done.returncode, done.stdout) == (0, f"capfilt {version('capfilt')}\n")


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
    assert len(commands) == 30
    assert max(map(len, shown.splitlines())) <= 80
    for command in ("download", "clean", "caption", "index"):  # those of the longest names
        shown = help_of(command)
        assert max(map(len, shown.splitlines())) <= 80
        assert not re.search(r"\w…", shown), shown  # a name that is cut


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
