"""`capfilt stats` and `capfilt explain`, on a run whose words are hostile."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shards.run.run import Run
from tests.support.driving import CAPFILT, InProcess
from tests.support.hostile_run import HOSTILE, make_run, picture
from tests.support.tars import read_members

Harmless = Callable[[str], bool]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("stats", "run", "--view=x"), "no view 'x'"),
        (("stats", "run", "--against=nowhere"), "'nowhere' is no view of this run (own)"),
        (("stats", "run", "--sql=SELECT 1", "--against=own"), "--against"),
        (("stats", "run", "--sql=SELECT nope FROM texts"), 'column "nope" not found'),
        (("stats", "run", "--sql=COPY texts TO 'stolen.csv'"), "COPY has no effect here"),
        (("explain", "run", "00000"), "expected SHARD/KEY"),
        (("explain", "run", "0000/plain"), "no shard '0000'; the nearest: 0000"),
        (("explain", "run", "00000/plein"), "no key 'plein'; the nearest: 'plain'"),
    ],
)
def test_bad_usage_is_one_message(
    capfilt: InProcess, run: Run, arguments: tuple[str, ...], message: str, harmless: Harmless
) -> None:
    done = capfilt.run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""
    assert harmless(done.stderr)
    assert run.store.list("views") == []
    assert not (capfilt.home / "stolen.csv").exists()


def test_an_unfinished_run(capfilt: InProcess, tmp_path: Path) -> None:
    make_run(tmp_path / "run", shards=1)
    judged = capfilt.run("judge", "run", "--name=x")
    assert (judged.returncode, "finish the run first" in judged.stderr) == (2, True)
    assert "shards: 2 total, 1 committed, 1 pending" in capfilt.run("stats", "run").stdout
    assert "0.3000 < 0.5" in capfilt.run("explain", "run", "00000/plain").stdout
    pending = capfilt.run("explain", "run", "00001/plain")
    assert (pending.returncode, "still pending" in pending.stderr) == (2, True)


@pytest.mark.usefixtures("run")
def test_explain_shows_every_view(capfilt: InProcess) -> None:
    assert capfilt.run("judge", "run", "--name=strict", "--threshold=synthetic=0.7").returncode == 0
    found = json.loads(capfilt.run("explain", "run", "00001/with/slash", "--json").stdout)
    (sample,) = found["samples"]
    assert (sample["index"], sample["status"], sample["format"]) == (1, "ok", "png")
    assert [text["text"] for text in sample["texts"]] == HOSTILE[2:5]
    decided = [
        {name: (d["keep"], d["threshold"]) for name, d in text["decisions"].items()}
        for text in sample["texts"]
    ]
    assert decided == [{"own": (False, 0.5), "strict": (False, 0.7)}] * 3
    kept = json.loads(capfilt.run("explain", "run", "00001/%5Bred%5Dkey%5B%2F%5D", "--json").stdout)
    (sample,) = kept["samples"]
    assert sample["key"] == "[red]key[/]"
    place = sample["clean"]["own"]
    assert sample["clean"].keys() == {"own"}  # the view wrote no tars
    assert dict(read_members(place["tar"]))[place["member"]] == picture(2)
    as_member = json.loads(capfilt.run("explain", "run", place["member"], "--json").stdout)
    assert as_member["samples"] == kept["samples"]
    rejected = capfilt.run("explain", "run", "00000/dotted.name").stdout
    assert "rejected" in rejected
    assert "image_empty" in rejected


def test_a_broken_view_does_not_hide_the_rest(capfilt: InProcess, run: Run) -> None:
    assert capfilt.run("judge", "run", "--name=strict", "--threshold=synthetic=0.7").returncode == 0
    run.store.put("views/broken/view.json", b"{")
    done = capfilt.run("explain", "run", "00000/plain")
    assert done.returncode == 0
    assert "view broken" in done.stdout
    assert "0.3000 < 0.7" in done.stdout


def test_no_model_is_loaded(run: Run) -> None:
    code = (
        "import sys\n"
        "from flows.cli import main\n"
        "for argv in (['judge', 'run', '--name=x', '--threshold=web=0.6', '--write-shards'],\n"
        "             ['stats', 'run', '--view=x', '--against=own'],\n"
        "             ['stats', 'run', '--sql', 'SELECT 1'], ['explain', 'run', '00000/plain']):\n"
        "    sys.argv = ['capfilt', *argv]\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as ended:\n"
        "        assert not ended.code, ended.code\n"
        "heavy = {'torch', 'transformers', 'ray', 'prefect'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    folder = Path(run.store.url()).parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def test_words_and_a_picture_of_what_the_filter_saw(
    capfilt: InProcess, toy_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "explained.png"
    address = json.loads(
        capfilt.run("stats", toy_run, "--json", "--sql", "SELECT shard, key FROM samples").stdout
    )
    shard, key = address["rows"][0] if isinstance(address, dict) else address[0].values()
    done = capfilt.run("explain", toy_run, f"{shard}/{key}", "--picture", out, "--json")
    assert done.returncode == 0, done.stderr
    (sample,) = json.loads(done.stdout)["samples"]
    for text in sample["texts"]:
        assert all(word.keys() == {"text", "effect"} for word in text["words"])
    assert out.read_bytes()[:4] == b"\x89PNG"
    shown = capfilt.run("explain", toy_run, f"{shard}/{key}", "--words")
    assert "word by word" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    refused = capfilt.run("explain", toy_run, f"{shard}/{key}", "--words", "--model", "tiny-filter")
    assert refused.returncode == 2
    assert "is not the filter of this run" in refused.stderr


@pytest.mark.parametrize(
    ("sql", "limit", "message"),
    [
        (  # which does not end even where it is interrupted
            "WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t) SELECT a FROM t",
            "--sql-timeout=0.5",
            "the question took longer than 0.5 s; give --sql-timeout SECONDS",
        ),
        (
            "SELECT list(range) FROM range(300000000)",
            "--sql-memory=0.1",
            "the question needs more than 0.1 GB of memory, or than 1 GB of temporary files; ask "
            "for less, or give --sql-memory GB",
        ),
    ],
)
def test_a_question_has_limits(
    toy_run: Path, tmp_path: Path, sql: str, limit: str, message: str
) -> None:
    command = [CAPFILT, "stats", str(toy_run), "--json", f"--sql={sql}", limit]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with (tmp_path / "out").open("w") as out:
        done = subprocess.run(
            command,
            env=os.environ | {"TMPDIR": str(scratch)},
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, f"capfilt: {message}\n")
    assert list(scratch.iterdir()) == []
