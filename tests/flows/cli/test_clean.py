"""`capfilt clean`, as a user types it."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from rich.cells import cell_len

from shards.run.run import Run
from tests.support.driving import InProcess, Models
from tests.support.toy_run import write_tar

Harmless = Callable[[str], bool]
Flags = Callable[[Models, Path, Path], list[str]]


MODELS = ("--captioner=tiny-captioner", "--filter=tiny-filter")
CLEAN = ("clean", "--direct", "--engine=local", "--input=~/web", "--output=~/out", *MODELS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*CLEAN, "--input="), "'' is no path or URL"),
        ((*CLEAN, "--output="), "output: expected a folder"),
        ((*CLEAN, "--output=~nobody-here/x"), "no user of that name here"),
        ((*CLEAN, "--captioner="), "no checkpoint without a name"),
        ((*CLEAN, "--filter=./tiny-filtr"), "Did you mean tiny-filter"),
        ((*CLEAN, "--set=judge.threshold.web=nan"), "finite number"),
        ((*CLEAN, "--set=judge.threshold.web=.nan"), "finite number"),
        (("index", "run", "--to="), "it is empty, and names no file or folder"),
        (("export", "run", "--to="), "'' is no path or URL"),
        (("checkpoint", "info", ""), "no checkpoint without a name"),
        (("checkpoint", "import", "tiny-filter", ""), "it is empty"),
        (("pretrain", "--set=output=''"), "expected a folder"),
    ],
)
def test_what_names_nothing_is_one_message(
    capfilt: InProcess,
    run: Run,
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(capfilt.home))
    (capfilt.home / "web").mkdir()
    (capfilt.home / "web" / "a.tar").touch()
    before = sorted(capfilt.home.rglob("*"))
    done = capfilt.run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert sorted(capfilt.home.rglob("*")) == before
    assert run.store.exists("run.json")


def test_home_folders_behind_flags_and_a_threshold_in_percent(
    capfilt: InProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOME", str(capfilt.home))
    (capfilt.home / "web").mkdir()
    picture = Image.effect_noise((64, 64), 64)
    content = io.BytesIO()
    picture.save(content, "PNG")
    members = {"a.png": content.getvalue(), "a.txt": b"a red square"}
    write_tar(capfilt.home / "web" / "00000.TAR", members)
    done = capfilt.run(*CLEAN, "--set=judge.threshold.web=50", "--set=judge.threshold.synthetic=-1")
    assert done.returncode == 0, done.stderr
    assert "'web' texts is 50, and" in caplog.text
    assert "For 50 % give 0.5" in caplog.text
    assert "'synthetic' texts is -1, and" in caplog.text
    assert Run.open(str(capfilt.home / "out")).inputs[0].shard == "00000"
    assert not (capfilt.home / "~").exists()


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b", "1/", "-1/2"])
def test_a_part_that_is_none_is_refused(
    capfilt: InProcess, flags: Flags, toy_models: Models, one_shard: Path, part: str
) -> None:
    command = flags(toy_models, one_shard, capfilt.home / "run")
    done = capfilt.run(*command, f"--part={part}")
    assert done.returncode == 2
    assert f"'{part}': expected i/n with 1 <= i <= n, as in 2/8" in done.stderr
    assert not (capfilt.home / "run").exists()


def test_parts_leave_the_rest_to_others(
    capfilt: InProcess, flags: Flags, toy_models: Models, toy_shards: Path
) -> None:
    command = [*flags(toy_models, toy_shards, capfilt.home / "run"), "--engine=local", "--direct"]
    done = capfilt.run(*command, "--part=3/6", "--json")
    assert done.returncode == 0, done.stderr  # its own part is done
    statistics = json.loads(done.stdout)
    assert (statistics["shards"]["committed"], statistics["shards"]["pending"]) == (2, 10)
    assert statistics["run"] == str(capfilt.home / "run")
    assert "run: 2 shards to clean, 0 done" in done.stderr
    again = capfilt.run(*command, "--part=3/6")
    assert again.returncode == 0
    assert "0 shards to clean, 2 done" in again.stderr
    assert "shards: 12 total, 2 committed, 10 pending" in again.stdout
    assert all(cell_len(line) <= 80 for line in again.stdout.splitlines()[:-1])
