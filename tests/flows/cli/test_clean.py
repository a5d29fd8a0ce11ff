"""`capfilt clean` and `capfilt judge`, as a user types them."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from rich.cells import cell_len

from shards.run.run import Run
from tests.support.driving import InProcess, Models
from tests.support.tars import read_members
from tests.support.toy_run import write_tar

Harmless = Callable[[str], bool]
Flags = Callable[[Models, Path, Path], list[str]]


@pytest.mark.usefixtures("run")
def test_judge_then_look(capfilt: InProcess) -> None:
    done = capfilt.run("judge", "run", "--name=strict", "--threshold=synthetic=0.7")
    assert done.returncode == 0, done.stderr
    assert "view strict: written" in done.stdout
    assert "look at it: capfilt stats run --view strict --against own\n" in done.stdout
    own = json.loads(capfilt.run("stats", "run", "--json").stdout)
    strict = json.loads(capfilt.run("stats", "run", "--view=strict", "--json").stdout)
    assert strict["thresholds"] == {"synthetic": 0.7, "web": 0.5}
    # of 10 samples, whose best scores are 0.3, 0.4, 0.5, 0.6 and 0.8 in each shard
    assert (own["kept"], strict["kept"]) == (6, 2)
    assert (
        "view: strict (synthetic 0.7, web 0.5)"
        in capfilt.run("stats", "run", "--view=strict").stdout
    )
    assert strict["samples_in"] == own["samples_in"] == 12
    assert strict["filtered"] == 8
    assert strict["rejected_by_reason"] == {"image_empty": 2}
    asked = "SELECT keep, count(*) AS n FROM decisions GROUP BY ALL ORDER BY ALL"
    rows = json.loads(capfilt.run("stats", "run", "--view=strict", "--json", "--sql", asked).stdout)
    kept = strict["texts"]["synthetic"]["kept"]
    assert rows == [{"keep": False, "n": 30 - kept}, {"keep": True, "n": kept}]
    again = capfilt.run("judge", "run", "--name=strict", "--threshold=synthetic=0.7", "--json")
    found = json.loads(again.stdout)
    assert (again.returncode, found["new"], found["samples"]["kept"]["here"]) == (0, False, 2)
    assert capfilt.run("verify", "run").returncode == 0


def test_fraction_with_shards(capfilt: InProcess, run: Run) -> None:
    flags = ("judge", "run", "--name=best", "--keep-fraction=synthetic=0.1", "--write-shards")
    done = capfilt.run(*flags, "--json")
    found = json.loads(done.stdout)
    assert found["rules"]["synthetic"]["keep_fraction"] == 0.1
    assert found["texts"]["synthetic"]["kept"]["here"] == 4  # three wanted, and one that ties
    urls = (Path(run.store.url()) / "views/best/clean.txt").read_text(encoding="utf-8").split()
    texts = []
    for url in urls:
        for name, content in read_members(url):
            if name.endswith(".json"):
                texts += json.loads(content)["texts"]
    assert sorted(round(text["itm"], 1) for text in texts) == [0.7, 0.7, 0.8, 0.8]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("judge", "run", "--name=own"), "run's own decisions"),
        (("judge", "run", "--name=../x"), "cannot name a view"),
        (("judge", "run", "--name=x", "--threshold=web"), "ORIGIN=NUMBER"),
        (("judge", "run", "--name=x", "--threshold=web=a"), "no number"),
        (("judge", "run", "--name=x", "--threshold=web=1", "--threshold=web=2"), "twice"),
        (("judge", "run", "--name=x", "--threshold=wbe=1"), "did you mean 'web'"),
        (("judge", "run", "--name=x", "--snapshot=none"), "no snapshot none"),
        (("judge", "nowhere", "--name=x"), "holds no run"),
        (("judge", "", "--name=x"), "'' is no path or URL"),
        (("judge", "run", "--name=x", "--keep-fraction=web=30"), "for 30 % give 0.3"),
        (("judge", "run", "--name=x", "--threshold=web=nan"), "should be a finite number"),
    ],
)
def test_what_cannot_be_judged_is_one_message(
    capfilt: InProcess, run: Run, arguments: tuple[str, ...], message: str, harmless: Harmless
) -> None:
    done = capfilt.run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""
    assert harmless(done.stderr)
    assert run.store.list("views") == []
    assert not (capfilt.home / "stolen.csv").exists()


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


def test_a_killed_judge_leaves_no_view(capfilt: InProcess, run: Run) -> None:
    code = (
        "import os, sys, shards.run.view\n"
        "import pipeline.views.rejudge as judging\n"
        "judging.commit_view = lambda *_: os._exit(9)\n"  # all files are written, but the record
        "from flows.cli import main\n"
        "sys.argv = ['capfilt', 'judge', 'run', '--name=x', '--threshold=web=0.6']\n"
        "main()\n"
    )
    folder = Path(run.store.url()).parent
    killed = subprocess.run([sys.executable, "-c", code], cwd=folder, check=False)
    assert killed.returncode == 9
    assert run.store.list("views")
    assert capfilt.run("stats", "run", "--view=x").returncode == 2
    assert capfilt.run("verify", "run").returncode == 0
    done = capfilt.run("judge", "run", "--name=x", "--threshold=web=0.6")
    assert (done.returncode, "written" in done.stdout) == (0, True)
    assert capfilt.run("stats", "run", "--view=x").returncode == 0


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
