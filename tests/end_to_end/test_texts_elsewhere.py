"""Texts that stand in a sidecar, or under another ending: cleaned, written again, trained on."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.toy.world import ToyWorldConfig, write_toy_world
from shards.training.source import SourceConfig
from shards.training.source_reader import open_source, read_part
from tests.support.driving import InProcess, Models
from tests.support.tars import read_members


@pytest.fixture
def toy(tmp_path: Path) -> dict[str, bytes]:
    """Members of a toy world's only shard."""
    write_toy_world(tmp_path / "toy", ToyWorldConfig(samples=5, samples_per_shard=5))
    (shard,) = (tmp_path / "toy").glob("*.tar")
    return dict(read_members(shard))


@pytest.mark.parametrize("place", ["json:alt", "caption"])
def test_what_reads_a_run_again_reads_the_same_samples(
    capfilt: InProcess,
    flags: Callable[..., list[str]],
    toy_models: Models,
    toy: dict[str, bytes],
    tmp_path: Path,
    place: str,
) -> None:
    (tmp_path / "web").mkdir()
    texts = {name[:-4]: data.decode() for name, data in toy.items() if name.endswith(".txt")}
    members = {name: data for name, data in toy.items() if name.endswith((".jpg", ".png"))}
    # a lone text is a row where texts are files, and moves the places of those behind it
    members |= {"000.caption": b"no picture", "000.txt": b"neither"}
    for key, text in texts.items():
        members[f"{key}.json"] = json.dumps({"alt": text}).encode()
        members[f"{key}.caption"] = text.encode()
        members[f"{key}.txt"] = b"another text"
    with tarfile.open(tmp_path / "web" / "00000.tar", "w") as tar:
        for name, data in sorted(members.items()):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    run = tmp_path / "run"
    command = [*flags(toy_models, tmp_path / "web", run), "--engine=local", "--direct"]
    command += [
        f"--set=input.text={place}",
        "--set=judge.threshold.web=0",
        "--set=write.clean=none",
    ]
    done = capfilt.run(*command)
    assert done.returncode == 0, done.stderr
    (table,) = (run / "data" / "samples").glob("*.parquet")
    rows = pq.read_table(table).to_pylist()
    assert {row["key"]: row["web_text"] for row in rows if row["status"] == "ok"} == texts
    assert len(rows) == len(texts) + (place == "caption")
    judged = capfilt.run("judge", run, "--name=all", "--threshold=web=0", "--write-shards")
    assert judged.returncode == 0, judged.stderr
    verified = capfilt.run("verify", run)
    assert verified.returncode == 0, verified.stdout
    for read in ("clean", "input"):
        source = open_source(SourceConfig(run=str(run), view="all", read=read))
        found = [sample for part in source.parts for sample in read_part(part)]
        assert sorted(
            text.text for s in found for text in s.texts if text.origin == "web"
        ) == sorted(texts.values())
    refused = capfilt.run(*command, "--set=input.text=txt")
    assert refused.returncode == 2
    assert "input.text" in refused.stderr
