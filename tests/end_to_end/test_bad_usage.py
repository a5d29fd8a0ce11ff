"""Names that can name nothing, and things that are no files: exit code 2, one line, no waiting."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.driving import InProcess

pytestmark = pytest.mark.usefixtures("impatient")

FILTER = "--model=tiny-filter"
CLEAN = ["clean", "--captioner=tiny-captioner", "--filter=tiny-filter", "--engine=local"]
USES = {
    "input": [*CLEAN, "--output=out", "--input={0}"],
    "input of two": [*CLEAN, "--output=out", "--input=web", "--input={0}"],
    "root": [*CLEAN, "--output=out", "--input=web", "--set=input.root={0!r}"],
    "output": [*CLEAN, "--input=web", "--output={0}"],
    "stats": ["stats", "{0}"],
    "verify": ["verify", "{0}"],
    "gc": ["gc", "{0}"],
    "report": ["report", "{0}"],
    "explain": ["explain", "{0}", "00000/a"],
    "judge": ["judge", "{0}", "--name=x"],
    "export": ["export", "{0}", "--to=out"],
    "index": ["index", "{0}", "--to=out", FILTER],
    "caption": ["caption", "{0}", "--model=tiny-captioner"],
    "match": ["match", "{0}", "a dog", FILTER],
    "pairs": ["evaluate", "retrieval", "tiny-filter", "{0}"],
}


@pytest.fixture
def home(capfilt: InProcess, toy_shards: Path) -> Path:
    (capfilt.home / "web").symlink_to(toy_shards)
    return capfilt.home


@pytest.fixture
def impatient() -> Iterator[None]:
    """Fail rather than wait for ever."""

    def fail(*_: object) -> None:
        pytest.fail("it waits")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def refused(capfilt: InProcess, arguments: list[str]) -> str:
    done = capfilt.run(*arguments)
    assert done.returncode == 2, done
    lines = done.stderr.splitlines()
    said = [line for line in lines if line.startswith("capfilt: ")]
    assert len(said) == 1, lines
    return said[0]


@pytest.mark.parametrize("name", ["", "s3://", "nosuchscheme://a/b"])
@pytest.mark.parametrize("use", USES)
def test_a_name_that_names_nothing(capfilt: InProcess, home: Path, use: str, name: str) -> None:
    before = sorted(home.iterdir())
    said = refused(capfilt, [argument.format(name) for argument in USES[use]])
    assert name.removesuffix("/a/b").removesuffix("//").removesuffix(":") in said
    assert sorted(home.iterdir()) == before


@pytest.mark.parametrize("use", [use for use in USES if use not in ("root", "input of two")])
def test_a_pipe_in_the_place_of_a_file(capfilt: InProcess, home: Path, use: str) -> None:
    os.mkfifo(home / "x.tar")
    assert "x.tar" in refused(capfilt, [argument.format("x.tar") for argument in USES[use]])


@pytest.mark.parametrize("use", ["input", "index", "caption", "pairs"])
def test_a_pipe_among_files(capfilt: InProcess, home: Path, toy_shards: Path, use: str) -> None:
    (home / "mixed").mkdir()
    (home / "mixed" / "00000.tar").symlink_to(toy_shards / "00000.tar")
    os.mkfifo(home / "mixed" / "00001.tar")
    said = refused(capfilt, [argument.format("mixed") for argument in USES[use]])
    assert "mixed/00001.tar is a named pipe, expected a file" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["clean", "x"],
        ["pretrain", "x"],
        ["finetune", "captioner", "x"],
        ["bootstrap", "x"],
        ["trial", "RUN", "x"],
        ["ask", "web/00000.tar", "what?", "--answers=x", FILTER],
        ["search", "index", "--text=x", FILTER],
    ],
)
def test_a_pipe_where_a_text_is_read(capfilt: InProcess, home: Path, arguments: list[str]) -> None:
    os.mkfifo(home / "x")
    (home / "index").mkdir()
    (home / "index" / "current").symlink_to(home / "x")
    assert "is a named pipe, expected a file" in refused(capfilt, arguments)
