"""`capfilt export` and `capfilt report`, cards, and pushing to a stand-in for the hub."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, ModelCard

from models.checkpoints import checkpoint
from tests.support.driving import CAPFILT, InProcess, Models
from tests.support.hub import TOKEN, Hub, serving


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as found:
        yield found


def pushed(hub: Hub, home: Path, *flags: object, token: str = TOKEN) -> tuple[int, str, str]:
    """Run a command that pushes, in a process of its own: the library reads its endpoint once."""
    place = {"HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HOME": str(home)}
    done = subprocess.run(
        [CAPFILT, *map(str, flags)],
        env=os.environ | place | {"HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_set_is_exported_and_pushed_private(hub: Hub, toy_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = ("export", toy_run, "--to", out, "--form", "parquet", "--push", "me/pairs")
    code, said, errors = pushed(hub, tmp_path, *flags)
    assert code == 0, errors
    assert "pushed to" in said
    files = hub.repos["datasets/me/pairs"]
    assert hub.private == {"datasets/me/pairs": True}
    there = {str(path.relative_to(out)): path for path in out.rglob("*") if path.is_file()}
    assert files == {name: path.read_bytes() for name, path in there.items()}
    assert not hub.unknown
    code, _, errors = pushed(hub, tmp_path, *flags)  # again: nothing large is sent twice
    assert code == 0, errors
    assert len(hub.puts) == len(set(hub.puts)) == sum(n.endswith(".parquet") for n in files)


def test_an_index_says_how_many_stand_apart(
    capfilt: InProcess, toy_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(toy_run, run := tmp_path / "run")
    strict = ("--threshold=web=0.99", "--threshold=synthetic=1")
    assert capfilt.run("judge", run, "--name=strict", *strict).returncode == 0
    flags = ("export", run, "--view=strict", "--form=index", "--dropped")
    record = json.loads(capfilt.run(*flags, "--to", tmp_path / "a", "--json").stdout)
    told = capfilt.run(*flags, "--to", tmp_path / "b").stdout
    assert record["dropped"] > 0
    assert f"pictures listed in {tmp_path / 'b'}; {record['dropped']} dropped ones, apart" in told


def test_a_refused_push_is_one_line_and_the_export_is_there(
    hub: Hub, toy_run: Path, tmp_path: Path
) -> None:
    flags = ("export", toy_run, "--to", tmp_path / "out", "--form=index", "--push", "me/pairs")
    code, _, errors = pushed(hub, tmp_path, *flags, token="hf_wrong")
    assert code == 1
    assert "HF_TOKEN" in errors
    assert len(errors.strip().splitlines()) == 1
    assert (tmp_path / "out" / "README.md").is_file()


@pytest.mark.nightly
def test_a_push_that_breaks_off_is_taken_up(hub: Hub, toy_run: Path, tmp_path: Path) -> None:
    flags = (
        "export", toy_run, "--to", tmp_path / "out", "--form=parquet", "--file-mib=1",
        "--push", "me/pairs",
    )  # fmt: skip
    hub.break_after = 0
    code, _, errors = pushed(hub, tmp_path, *flags)
    assert code == 1
    assert "run the same command again" in errors
    hub.break_after = None
    code, _, errors = pushed(hub, tmp_path, *flags)
    assert code == 0, errors
    assert "data/train-00000.parquet" in hub.repos["datasets/me/pairs"]


def test_a_checkpoint_is_pushed_with_its_card(hub: Hub, tmp_path: Path) -> None:
    flags = ("checkpoint", "export", "tiny-filter", tmp_path / "out", "--push", "me/model")
    code, _, errors = pushed(hub, tmp_path, *flags, "--public")
    assert code == 0, errors
    assert hub.private == {"models/me/model": False}
    assert {"README.md", "config.json", "model.safetensors"} <= hub.repos["models/me/model"].keys()


def test_every_checkpoint_and_every_clean_set_has_its_card(
    capfilt: InProcess, toy_run: Path, toy_models: Models, tmp_path: Path
) -> None:
    card = DatasetCard.load(toy_run / "README.md")
    stats = json.loads(capfilt.run("stats", toy_run, "--json").stdout)
    assert f"{stats['samples_in']:,} | {stats['kept']:,}" in card.text
    done = capfilt.run("checkpoint", "import", toy_models.filter, tmp_path / "imported")
    assert done.returncode == 0, done.stderr
    model = ModelCard.load(tmp_path / "imported" / "README.md")
    digest = checkpoint.info(tmp_path / "imported").digest
    assert digest in model.text
    (tmp_path / "imported" / "README.md").unlink()
    assert checkpoint.info(tmp_path / "imported").digest == digest  # the card is no part of it


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("{run}", "--to", "{place}"), "holds no export"),
        (("{place}", "--to", "{place}/out"), "no run"),
        (("{run}", "--to", "{place}/out", "--view", "none"), "none"),
    ],
)
def test_what_cannot_be_exported_is_one_message(
    capfilt: InProcess, toy_run: Path, tmp_path: Path, given: tuple[str, ...], said: str
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "x").write_text("x")
    done = capfilt.run("export", *(flag.format(run=toy_run, place=place) for flag in given))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("{run}", "--view=nothing"), "no view 'nothing'"),
        (("{nowhere}",), "holds no run"),
        (("{run}", "--output=folder/"), "expected a file, such as report.html"),
        (("{run}", "--output={run}"), "expected a file, such as report.html"),
        (("{run}", "--gallery=61"), "less than or equal to 60"),
    ],
)
def test_what_cannot_be_reported_is_one_message(
    capfilt: InProcess, toy_run: Path, tmp_path: Path, given: tuple[str, ...], said: str
) -> None:
    done = capfilt.run("report", *(flag.format(run=toy_run, nowhere=tmp_path) for flag in given))
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_report_is_written_where_it_is_asked_for(
    capfilt: InProcess, toy_run: Path, tmp_path: Path
) -> None:
    flags = ("--gallery=1", "--explain=0", "--output=pages/it.html")
    done = capfilt.run("report", toy_run, *flags, "--json")
    page = tmp_path / "pages" / "it.html"
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"report": str(page), "size_bytes": page.stat().st_size}
    again = capfilt.run("report", toy_run, *flags)
    assert again.stdout.startswith(f"{page} (")
