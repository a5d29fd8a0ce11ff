"""`capfilt judge`, as a user types it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from shards.run.run import Run
from tests.support.driving import InProcess
from tests.support.tars import read_members

Harmless = Callable[[str], bool]


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


SCORED = (
    "COPY (SELECT shard, index, text_no, 1 - itm AS p FROM read_parquet('run/data/texts/*')) "
    "TO 'clip.parquet'"
)


@pytest.mark.usefixtures("run")
def test_scores_from_outside_judge_a_view(
    capfilt: InProcess, monkeypatch: pytest.MonkeyPatch, harmless: Harmless
) -> None:
    monkeypatch.chdir(capfilt.home)
    duckdb.execute(SCORED)
    done = capfilt.run("judge", "run", "--scores=clip.parquet", "--json")
    taken = json.loads(done.stdout)
    assert (taken["scores"], taken["new"], taken["texts"]) == (["clip.p"], True, 30)
    flags = ("--name=v", "--where=clip.p >= 0.5 and itm > 0.3", "--prefer=web,synthetic")
    judged = capfilt.run("judge", "run", "--scores=clip.parquet", *flags)
    assert judged.returncode == 0, judged.stderr
    assert "scores clip.p: were there already, of 30 texts (100.0 %)" in judged.stdout
    assert "judged by: where clip.p >= 0.5 and itm > 0.3, the first of web, s" in judged.stdout
    stats = capfilt.run("stats", "run", "--view=v")
    assert "scores: clip.p, of" in stats.stdout
    assert "view: v (where clip.p >= 0.5 and itm > 0.3, the first of" in stats.stdout
    asked = "SELECT count(*) AS n FROM decisions JOIN texts USING (shard, index, text_no) WHERE "
    asked += "keep AND NOT (1 - itm >= 0.5 AND itm > 0.3)"
    rows = json.loads(capfilt.run("stats", "run", "--view=v", "--json", "--sql", asked).stdout)
    assert rows == [{"n": 0}]
    kept = json.loads(capfilt.run("stats", "run", "--view=v", "--json").stdout)
    assert kept["kept"] > 0
    assert kept["where"] == "clip.p >= 0.5 and itm > 0.3"
    again = capfilt.run("judge", "run", *flags, "--json")
    assert json.loads(again.stdout)["new"] is False
    other = capfilt.run("judge", "run", "--name=v", "--where=itm > 0.3")
    assert other.returncode == 2
    assert "with other rules (where clip.p >= 0.5 and itm > 0.3, the first of" in other.stderr
    assert capfilt.run("verify", "run").returncode == 0
    assert harmless(judged.stdout + stats.stdout + other.stderr)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "give the new view a --name"),
        (("--name=x", "--scores-name=y"), "give that, too"),
        (("--scores=none.parquet",), "no Parquet file of scores is there"),
        (("--name=x", "--where=itn > 1"), "no score or column 'itn'; did you mean itm?"),
        (("--name=x", "--where=itm = 1"), "equal is =="),
        (("--name=x", "--by=width"), "no score or column 'width'"),
        (("--name=x", "--by=text_no"), "it is no score; there are: itc, itm"),
        (("--name=x", "--by=itc"), "the run's own are on itm, not itc"),
        (("--name=x", "--prefer=wbe"), "'wbe' is no origin of this run"),
    ],
)
def test_what_names_nothing_is_one_message(
    capfilt: InProcess, run: Run, flags: tuple[str, ...], message: str
) -> None:
    done = capfilt.run("judge", "run", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert run.store.list("views") == run.store.list("scores") == []


def test_score_as_a_user_types_it(capfilt: InProcess, run: Run) -> None:
    for flags, message in (
        (("--scorer=nowhere", "--name=x"), "nowhere"),
        (("--scorer=tiny-filter", "--name=a-b"), "'a-b' cannot name a set of scores"),
    ):
        done = capfilt.run("score", "run", *flags, "--engine=local", "--direct")
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert run.store.list("scores") == []


def test_judged_directly_prefect_hears_nothing(
    capfilt: InProcess, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")  # nobody listens there
    done = capfilt.run("judge", "run", "--name=x", "--threshold=web=0.6", "--direct")
    assert (done.returncode, done.stderr) == (0, "")
    assert run.store.list("views")
