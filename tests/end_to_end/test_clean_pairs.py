"""The main job: real pairs through Ray and Prefect, read back by the tools that people use."""

import html
import json
import re
import unicodedata
from pathlib import Path

import duckdb
import pytest
import webdataset

from shards.run.run import Run
from shards.run.snapshot import open_snapshot
from tests.support.driving import Command, InProcess, Models, committed

pytestmark = pytest.mark.slow

ROOMS = ("models", "shards", "pipeline")
DIRECTION = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@pytest.fixture(scope="module")
def pairs(data_dir: Path) -> list[tuple[str, str, str]]:
    """(shard, key, caption) of every real pair."""
    file = data_dir / "pairs" / "pairs.parquet"
    return duckdb.execute(f"SELECT shard, key, caption FROM '{file}' ORDER BY ALL").fetchall()


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory,
    data_dir: Path,
    parity_models: Models,
    loopback_only: list[str],
) -> Path:
    """A finished run over all real pairs, as a user starts it who has packages named as ours."""
    home = tmp_path_factory.mktemp("pairs")
    for room in ROOMS:
        (home / room).mkdir()
        (home / room / "__init__.py").write_text("raise SystemExit('the wrong room')\n")
    done = Command(loopback_only, home).run(
        "clean",
        f"--input={data_dir / 'pairs' / 'shards'}",
        "--output=run",
        f"--captioner={parity_models.captioner}",
        f"--filter={parity_models.filter}",
        "--actors=2",
        "--set=write.images=jpeg",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    statistics = json.loads(done.stdout)
    (home / "statistics.json").write_text(json.dumps(statistics))
    return home / "run"


def as_stored(caption: str) -> str:
    """One line in NFC, without entities and control characters; of those some part no words."""
    while re.search(r"&#?\w+;", caption) and html.unescape(caption) != caption:
        caption = html.unescape(caption)
    control = [" " if unicodedata.category(c) == "Cc" else c for c in caption if c not in DIRECTION]
    return " ".join(unicodedata.normalize("NFC", "".join(control)).split())


def test_every_pair_went_in_and_none_is_lost(run: Path, pairs: list[tuple[str, str, str]]) -> None:
    statistics = json.loads((run.parent / "statistics.json").read_text())
    parts = (statistics[name] for name in ("kept", "filtered", "rejected"))
    assert statistics["samples_in"] == len(pairs) == sum(parts)
    assert statistics["shards"]["pending"] == 0
    found = duckdb.execute(
        f"SELECT shard || '.tar', key, web_text FROM '{run}/data/samples/*.parquet' ORDER BY ALL"
    ).fetchall()
    assert [row[:2] for row in found] == [(Path(shard).name, key) for shard, key, _ in pairs]
    assert [row[2] for row in found] == [as_stored(caption) for *_, caption in pairs]


def test_packages_of_the_users_are_left_alone(run: Path) -> None:
    for room in ROOMS:  # whoever imports one leaves its bytecode behind
        assert [path.name for path in (run.parent / room).iterdir()] == ["__init__.py"]


def test_each_picture_has_a_new_text_and_every_text_its_scores(run: Path) -> None:
    texts = f"'{run}/data/texts/*.parquet'"
    missing = duckdb.execute(
        f"""SELECT count(*) FROM '{run}/data/samples/*.parquet' samples
        WHERE status = 'ok' AND NOT EXISTS (
            SELECT 1 FROM {texts} texts
            WHERE texts.shard = samples.shard AND texts.index = samples.index
            AND origin = 'synthetic' AND author IS NOT NULL AND logprob < 0)"""
    ).fetchone()
    assert missing == (0,)
    wrong = duckdb.execute(
        f"""SELECT count(*) FROM {texts} WHERE itm IS NULL OR itm NOT BETWEEN 0 AND 1
        OR itc NOT BETWEEN -1.001 AND 1.001 OR abs(1 / (1 + exp(-itm_logit)) - itm) > 1e-3"""
    ).fetchone()
    assert wrong == (0,)


def test_verify_finds_nothing(run: Path, capfilt: InProcess) -> None:
    done = capfilt.run("verify", run)
    assert (done.returncode, done.stdout[:10]) == (0, "0 problems")


def test_verify_finds_one_changed_byte(run: Path, capfilt: InProcess) -> None:
    victim = next((run / "data" / "texts").iterdir())
    healthy = victim.read_bytes()
    victim.write_bytes(healthy[:100] + bytes([healthy[100] ^ 1]) + healthy[101:])
    try:
        done = capfilt.run("verify", run)
    finally:
        victim.write_bytes(healthy)
    assert done.returncode == 1
    assert victim.name in done.stdout


def test_webdataset_reads_the_kept_samples(run: Path) -> None:
    urls = (run / "clean.txt").read_text().split()
    read = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode("pil"))
    kept = duckdb.execute(
        f"""SELECT shard, index, min(text_no), count(*) FROM '{run}/data/decisions/*.parquet'
        WHERE keep GROUP BY ALL ORDER BY ALL"""
    ).fetchall()
    assert (
        len(read) == len(kept) == json.loads((run.parent / "statistics.json").read_text())["kept"]
    )
    first = {
        (shard, index, number): text
        for shard, index, number, text in duckdb.execute(
            f"SELECT shard, index, text_no, text FROM '{run}/data/texts/*.parquet'"
        ).fetchall()
    }
    for sample, (shard, index, number, count) in zip(read, kept, strict=True):
        record = sample["json"]
        assert record["shard"] == shard
        assert sample["__key__"].startswith(f"{shard}/")
        assert len(record["texts"]) == count
        assert sample["jpg"].mode == "RGB"
        if number == 0:  # web_first
            assert sample["txt"] == first[shard, index, 0]


def test_hugging_face_datasets_reads_them(run: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    urls = (run / "clean.txt").read_text().split()
    loaded = datasets.load_dataset(
        "webdataset", data_files=urls, split="train", cache_dir=str(tmp_path)
    )
    assert len(loaded) == json.loads((run.parent / "statistics.json").read_text())["kept"]
    assert {"jpg", "json", "txt"} <= set(loaded.column_names)
    assert loaded[0]["jpg"].mode == "RGB"


def test_duckdb_joins_the_tables(run: Path) -> None:
    data = run / "data"
    rows = duckdb.execute(
        f"""SELECT count(*), sum(keep::INT) FROM '{data}/samples/*.parquet' samples
        JOIN '{data}/texts/*.parquet' texts USING (shard, index)
        JOIN '{data}/decisions/*.parquet' decisions USING (shard, index, text_no)"""
    ).fetchone()
    statistics = json.loads((run.parent / "statistics.json").read_text())
    texts = statistics["texts"].values()
    assert rows == (sum(t["in"] for t in texts), sum(t["kept"] for t in texts))


def test_stats_agree_with_the_end_of_the_run(run: Path, capfilt: InProcess) -> None:
    done = capfilt.run("stats", run, "--json")
    recorded = json.loads((run.parent / "statistics.json").read_text())
    recorded = {key: recorded[key] for key in recorded.keys() - {"run", "workers"}}
    assert json.loads(done.stdout) == recorded
    histograms = recorded["histograms"]
    assert {origin: sum(h["counts"]) for origin, h in histograms.items()} == {
        origin: texts["in"] for origin, texts in recorded["texts"].items()
    }


def test_stats_fit_a_terminal(run: Path, capfilt: InProcess) -> None:
    done = capfilt.run("stats", run)
    assert done.returncode == 0
    assert max(len(line) for line in done.stdout.splitlines() if "output:" not in line) <= 80


def test_a_second_start_does_nothing_again(
    run: Path, capfilt: InProcess, parity_models: Models, data_dir: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (run / "data").rglob("*.*")}
    attempts = len(list((run / "attempts").rglob("*.json")))
    done = capfilt.run(
        "clean",
        f"--input={data_dir / 'pairs' / 'shards'}",
        f"--output={run}",
        f"--captioner={parity_models.captioner}",
        f"--filter={parity_models.filter}",
        "--set=write.images=jpeg",
        "--direct",
        "--engine=local",
    )
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in (run / "data").rglob("*.*")} == before
    assert len(list((run / "attempts").rglob("*.json"))) == attempts
    opened = Run.open(str(run))
    assert {shard.shard for shard in open_snapshot(opened).shards} == committed(run)
