"""The commands that judge again and look at views, on a run whose words are hostile."""

import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.cells import cell_len

from pipeline.clean.export import Provenance, WriteConfig, clean_sample
from pipeline.clean.judge import JudgeConfig, judge
from pipeline.clean.screen import ScreenConfig, screen
from shards.inputs.listing import InputShard, list_inputs
from shards.inputs.reader import ShardReader, open_shard
from shards.run.attempt import start_attempt
from shards.run.commit import Commit, InputRecord, StateRecord, commit
from shards.run.run import Run
from shards.run.snapshot import write_snapshot
from shards.schema import TEXTS, arrow_rows
from shards.store import Store
from shards.writer import ShardWriter
from tests.support.driving import InProcess

HOSTILE = [
    "\x1b[31mred\x1b]0;title\x07",
    "[red]markup[/] [/] [link=file:///etc/passwd]x[/link] :boom:",
    "\u202ereversed\u2066 \u200eleft",
    "bell\x07 back\x08 return\r over \x9b2J",
    "tab\tand\nnew lines\u2028here",
    "wide 漢字 and 👩‍👩‍👧 and e\u0301",
]
KEYS = ["plain", "with/slash", "[red]key[/]", "esc\x1b[2Jape", "dotted.name", "\u202erev"]
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def picture(number: int) -> bytes:
    buffer = io.BytesIO()
    image = Image.new("RGB", (40, 40), (number * 30, 9, 9))
    image.putpixel((0, 0), (255, 255, 255))
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write_inputs(folder: Path) -> list[InputShard]:
    folder.mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"{shard:05}.tar", "w") as tar:
            for number, key in enumerate(KEYS):
                data = b"" if number == 4 else picture(number)
                info = tarfile.TarInfo(f"{key}.png")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return list_inputs([str(folder)])


def work(run: Run, item: InputShard) -> Commit:
    """Clean a shard with made-up texts and scores, in place of models."""
    attempt, config = start_attempt(run, item.shard), JudgeConfig()
    source = Provenance(item.shard, run.fingerprint, 0)
    with open_shard(item.url) as file, ShardWriter(run.store, item.shard, attempt) as writer:
        reader = ShardReader(file)
        for raw in reader:
            screened = screen(raw, ScreenConfig())
            place = {"shard": item.shard, "index": raw.index}
            texts = [
                place
                | {"text_no": n, "origin": "synthetic", "text": HOSTILE[(raw.index + n) % 6]}
                | {"itm": (raw.index + n) / 10, "itm_logit": 1.0, "itc": 0.5, "logprob": -1.0}
                for n in range(1, 4)
            ]
            texts = texts if screened.ok else []
            decisions = judge(arrow_rows(texts, TEXTS), config).to_pylist()
            kept = [t for t, d in zip(texts, decisions, strict=True) if d["keep"]]
            facts = screened.facts | {"url": HOSTILE[0]}
            clean = None
            if kept:
                clean = clean_sample(facts, kept, raw.image or b"", WriteConfig(), source)
            writer.add(facts, texts, decisions, clean)
        files = writer.finish()
    return Commit(
        shard=item.shard,
        fingerprint=run.fingerprint,
        attempt=attempt,
        input=InputRecord(url=item.url, size_bytes=reader.bytes_read, sha256=reader.sha256),
        state=StateRecord(state=reader.state.state),
        files=tuple(files),
        counts=writer.counts,
        environment={},
        started="",
        ended="",
    )


def make_run(folder: Path, shards: int = 2) -> Run:
    inputs = write_inputs(folder.parent / f"{folder.name}-web")
    config = {"threshold": {"web": 0.5, "synthetic": 0.5}}
    identity = {
        "seed": 0,
        "judge": config,
        "write": WriteConfig().model_dump(),
        "screen": ScreenConfig().model_dump(),
    }
    run = Run.create(Store(str(folder)), "", identity, {}, inputs)
    for item in inputs[:shards]:
        assert commit(run, work(run, item))
    if shards == len(inputs):
        write_snapshot(run)
    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "run"
    make_run(folder)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    """A copy of the run, as `run` in the folder where the command is run."""
    copied = Run.open(str(shutil.copytree(made, tmp_path / "run")))
    write_snapshot(copied)  # whose list of clean tars has absolute paths
    return copied


def harmless(output: str) -> bool:
    return RAW.search(output) is None


@pytest.mark.usefixtures("run")
def test_judge_then_look(capfilt: InProcess) -> None:
    done = capfilt.run("judge", "run", "--name=strict", "--threshold=synthetic=0.7")
    assert done.returncode == 0, done.stderr
    assert "view strict: written" in done.stdout
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
        with tarfile.open(url) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    texts += json.load(tar.extractfile(member))["texts"]
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
        (("stats", "run", "--view=x"), "no view 'x'"),
        (("stats", "run", "--against=nowhere"), "'nowhere' is no view of this run (own)"),
        (("stats", "run", "--sql=SELECT 1", "--against=own"), "--against"),
        (("stats", "run", "--sql=SELECT nope FROM texts"), 'column "nope" not found'),
        (("stats", "run", "--sql=COPY texts TO 'stolen.csv'"), "Permission Error"),
        (("explain", "run", "00000"), "expected SHARD/KEY"),
        (("explain", "run", "0000/plain"), "no shard '0000'; the nearest: 0000"),
        (("explain", "run", "00000/plein"), "no key 'plein'; the nearest: 'plain'"),
    ],
)
def test_bad_usage_ends_in_2(
    capfilt: InProcess, run: Run, arguments: tuple[str, ...], message: str
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
    with tarfile.open(place["tar"]) as tar:
        assert tar.extractfile(place["member"]).read() == picture(2)
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


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("key", KEYS)
def test_nothing_hostile_reaches_the_terminal(capfilt: InProcess, key: str) -> None:
    assert capfilt.run("judge", "run", "--name=strict", "--threshold=synthetic=0.7").returncode == 0
    done = capfilt.run("explain", "run", f"00000/{key}")
    assert done.returncode == 0, done.stderr
    assert harmless(done.stdout)
    assert all(cell_len(line) <= 80 for line in done.stdout.splitlines())
    if key == "plain":
        assert "[red]markup[/] [/] [link=" in done.stdout  # shown, not obeyed
        assert ":boom:" in done.stdout
        assert r"\u202ereversed\u2066" in done.stdout


@pytest.mark.usefixtures("run")
def test_sql_shows_hostile_cells_as_they_are(capfilt: InProcess) -> None:
    for sql in ("SELECT text, itm FROM texts", "SELECT * FROM texts JOIN samples USING (index)"):
        done = capfilt.run("stats", "run", "--sql", sql)
        assert done.returncode == 0, done.stderr
        assert harmless(done.stdout)
        assert "[red]markup" in done.stdout
    named = capfilt.run("stats", "run", "--sql", 'SELECT 1 AS "\x1b[31m[red]", \'a\' AS "[/]"')
    assert harmless(named.stdout)
    assert "[red]" in named.stdout
    sql = "SELECT text::INT FROM texts WHERE text LIKE '%title%'"
    failed = capfilt.run("stats", "run", "--sql", sql)
    assert (failed.returncode, "title" in failed.stderr) == (2, True)
    assert harmless(failed.stderr)


@pytest.mark.usefixtures("run")
def test_many_rows_are_counted(capfilt: InProcess) -> None:
    done = capfilt.run("stats", "run", "--sql", "SELECT range FROM range(1234)")
    assert "the first 40 of 1,234 rows" in done.stdout
    rows = json.loads(
        capfilt.run("stats", "run", "--json", "--sql", "SELECT range FROM range(1234)").stdout
    )
    assert rows == [{"range": number} for number in range(1234)]
    assert capfilt.run("stats", "run", "--json", "--sql", "SELECT 1 WHERE false").stdout == "[]\n"


@pytest.mark.usefixtures("run")
def test_values_as_json(capfilt: InProcess) -> None:
    sql = (
        "SELECT 'ab'::BLOB AS b, DATE '2026-01-02' AS d, TIMESTAMP '2026-01-02 03:04:05' AS t, "
        "'nan'::FLOAT AS f, 1.5::DECIMAL(5,2) AS x, [1, NULL] AS l, {'a': 'ab'::BLOB} AS s, "
        "sum(1) AS h, 1 AS h"
    )
    (row,) = json.loads(capfilt.run("stats", "run", "--json", "--sql", sql).stdout)
    expected: dict[str, Any] = {"b": "6162", "d": "2026-01-02", "t": "2026-01-02T03:04:05"}
    expected |= {"f": None, "x": 1.5, "l": [1, None], "s": {"a": "6162"}, "h": 1, "h_1": 1}
    assert row == expected


@pytest.mark.usefixtures("run")
def test_against(capfilt: InProcess, tmp_path: Path) -> None:
    assert capfilt.run("judge", "run", "--name=strict", "--threshold=synthetic=0.7").returncode == 0
    found = json.loads(
        capfilt.run("stats", "run", "--view=strict", "--against=own", "--json").stdout
    )
    assert found["samples"]["kept"] == {"here": 2, "there": 6, "difference": -4}
    places = {"both": 2, "only_here": 0, "only_there": 4, "neither": 6}
    assert found["joined"]["samples"] == places
    shown = capfilt.run("stats", "run", "--view=strict", "--against=own")
    assert all(
        cell_len(line) <= 80 for line in shown.stdout.splitlines()[2:]
    )  # but for the folders
    assert "only there" in shown.stdout
    make_run(tmp_path / "other")
    found = json.loads(capfilt.run("stats", "run", "--against=other", "--json").stdout)
    assert found["there"]["run"] == str(tmp_path / "other")
    assert found["joined"]["texts_of"] == "web texts"
    assert found["joined"]["samples"]["both"] == 6
    shown = capfilt.run("stats", "run", "--against=other")
    assert "only those of the web" in shown.stdout


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
