"""What a user gets wrong: one clear message, the right exit code, and nothing lost."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.driving import InProcess, Models, committed, table

Flags = Callable[[Models, Path, Path], list[str]]
HERE = ("--engine=local", "--direct")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture
def shards(place: Path, toy_shards: Path) -> Path:
    """Three toy shards that a test may harm, at the same place for all tests."""
    folder = place / "web"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in sorted(toy_shards.glob("*.tar"))[:3]:
        shutil.copy2(path, folder)
    return folder


@pytest.fixture
def run(place: Path, capfilt: InProcess, flags: Flags, toy_models: Models, shards: Path) -> Path:
    """A finished run over them; made once, and put back."""
    run, pristine = place / "run", place / "pristine"
    if pristine.exists():
        shutil.rmtree(run)
        shutil.copytree(pristine, run)
        return run
    done = capfilt.run(*flags(toy_models, shards, run), *HERE)
    assert done.returncode == 0, done.stderr
    shutil.copytree(run, pristine)
    return run


def complains(done: "subprocess.CompletedProcess[str]", code: int, *words: str) -> None:
    """Assert the exit code, and one message without a traceback that holds all words."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_a_broken_recipe(capfilt: InProcess, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "output: run\ninput: {urls: [x.tar]}\ncaptoin: {model: a}\nscore: {model: b}\n"
    )
    done = capfilt.run("clean", recipe)
    complains(done, 2, str(recipe), "captoin", "Did you mean caption?", "caption.model: missing")
    assert not (tmp_path / "run").exists()


def test_a_missing_checkpoint(
    capfilt: InProcess, flags: Flags, toy_models: Models, shards: Path, tmp_path: Path
) -> None:
    models = Models(tmp_path / "no" / "such" / "folder", toy_models.filter)
    done = capfilt.run(*flags(models, shards, tmp_path / "run"), *HERE)
    complains(done, 2, str(models.captioner), "no checkpoint folder")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_the_other_role(
    capfilt: InProcess, flags: Flags, toy_models: Models, shards: Path, tmp_path: Path
) -> None:
    models = Models(toy_models.filter, toy_models.filter)
    done = capfilt.run(*flags(models, shards, tmp_path / "run"), *HERE)
    complains(done, 2, "holds a filter", "expected a captioner")


def test_a_torn_checkpoint(
    capfilt: InProcess, flags: Flags, toy_models: Models, shards: Path, tmp_path: Path
) -> None:
    torn = tmp_path / "torn"
    shutil.copytree(toy_models.captioner, torn)
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    done = capfilt.run(*flags(Models(torn, toy_models.filter), shards, tmp_path / "run"), *HERE)
    complains(done, 2, "torn")


def test_more_tokens_than_the_model_has_places_for(
    capfilt: InProcess, flags: Flags, toy_models: Models, shards: Path, tmp_path: Path
) -> None:
    for setting in ("caption.max_tokens=5000", "score.max_tokens=512"):
        done = capfilt.run(*flags(toy_models, shards, tmp_path / "run"), *HERE, f"--set={setting}")
        complains(done, 2, "max_tokens")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("nowhere", ("nowhere",)),
        ("nothing-*.tar", ("nothing-*.tar", "matches no *.tar")),
        ("pairs.parquet", ("pairs.parquet", "there is no")),
        ("pipe:cat web.tar", ("pipe:", "refused")),
    ],
)
def test_an_input_that_is_none(
    capfilt: InProcess,
    flags: Flags,
    toy_models: Models,
    tmp_path: Path,
    given: str,
    words: tuple[str, ...],
) -> None:
    done = capfilt.run(*flags(toy_models, Path(given), tmp_path / "run"), *HERE)
    complains(done, 2, *words)
    assert not (tmp_path / "run").exists()


def test_a_wrong_column(capfilt: InProcess, run: Path) -> None:
    victim = next((run / "data" / "texts").iterdir())
    read = pq.read_table(victim)
    pq.write_table(read.drop_columns(["itm"]), victim)
    done = capfilt.run("verify", run)
    assert done.returncode == 1
    assert victim.name in done.stdout
    done = capfilt.run("stats", run)
    complains(done, 2, victim.name, "'itm'", "missing")


def test_a_changed_input(
    capfilt: InProcess, flags: Flags, toy_models: Models, shards: Path, run: Path
) -> None:
    before = table(run, "texts")
    first = sorted(shards.iterdir())[0]
    shutil.copy(sorted(shards.iterdir())[1], first)  # another content, size or both
    os.utime(first, (1, 1))
    done = capfilt.run(*flags(toy_models, shards, run), *HERE)
    complains(done, 1, first.stem, "changed", "expected", "found")
    assert table(run, "texts") == before


def test_a_touched_input_is_the_same_input(
    capfilt: InProcess, flags: Flags, toy_models: Models, shards: Path, run: Path
) -> None:
    os.utime(sorted(shards.iterdir())[0], (1, 1))
    assert capfilt.run(*flags(toy_models, shards, run), *HERE).returncode == 0


def test_another_list_of_inputs(
    capfilt: InProcess, flags: Flags, toy_models: Models, shards: Path, run: Path
) -> None:
    sorted(shards.iterdir())[0].unlink()
    done = capfilt.run(*flags(toy_models, shards, run), *HERE)
    complains(done, 2, "another list", "00000")


def test_another_recipe_on_an_old_run(
    capfilt: InProcess, flags: Flags, toy_models: Models, shards: Path, run: Path
) -> None:
    before = table(run, "texts")
    other = ("--set=caption.top_p=0.5", "--set=judge.threshold.web=0.7")
    done = capfilt.run(*flags(toy_models, shards, run), *HERE, *other)
    complains(done, 2, "another recipe", "caption.top_p: 0.9 -> 0.5", "judge.threshold", "0.7")
    assert table(run, "texts") == before


def test_a_recipe_that_differs_in_speed_only_goes_on(
    capfilt: InProcess, flags: Flags, toy_models: Models, shards: Path, run: Path
) -> None:
    done = capfilt.run(*flags(toy_models, shards, run), *HERE, "--set=engine.batch_size=3")
    assert done.returncode == 0, done.stderr


def test_a_folder_that_is_no_run(
    capfilt: InProcess, flags: Flags, toy_models: Models, shards: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    done = capfilt.run(*flags(toy_models, shards, tmp_path / "run"), *HERE)
    complains(done, 2, "thesis.txt", "no run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_a_damaged_shard_is_said_and_counted(
    capfilt: InProcess, flags: Flags, toy_models: Models, shards: Path, tmp_path: Path
) -> None:
    first = sorted(shards.iterdir())[0]
    first.write_bytes(first.read_bytes()[:20_000])
    done = capfilt.run(*flags(toy_models, shards, tmp_path / "run"), *HERE, "--json")
    assert done.returncode == 3, done.stderr
    statistics = json.loads(done.stdout)
    assert statistics["shards"]["damaged"] == 1
    assert statistics["rejected_by_reason"] == {"shard_truncated": 1}
    assert capfilt.run("verify", tmp_path / "run").returncode == 0


def test_mostly_unusable_input_stops_the_run(
    capfilt: InProcess, flags: Flags, toy_models: Models, tmp_path: Path
) -> None:
    import io
    import tarfile

    folder = tmp_path / "junk"
    folder.mkdir()
    for shard in range(4):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for n in range(500):
                for extension, data in (("jpg", b"<html>404</html>"), ("txt", b"a text")):
                    member = tarfile.TarInfo(f"{n:04}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    done = capfilt.run(*flags(toy_models, folder, tmp_path / "run"), *HERE)
    complains(done, 1, "limits.rejected", "100.0%", "image_undecodable")
    assert committed(tmp_path / "run") == {"0", "1"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs to mount a small tmpfs (root)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.nightly  # as `test_full_disk.py`, but with more and larger shards
def test_a_full_disk_loses_nothing_and_the_run_goes_on(
    capfilt: InProcess,
    flags: Flags,
    toy_models: Models,
    toy_shards: Path,
    small_disk: Path,
    tmp_path: Path,
) -> None:
    command = [*flags(toy_models, toy_shards, small_disk / "run"), *HERE]
    done = capfilt.run(*command, "--set=judge.threshold={web: 0, synthetic: 0}")
    complains(done, 1, "the disk is full", "run the same command again")
    survived = committed(small_disk / "run")
    assert 0 < len(survived) < 12
    assert capfilt.run("verify", small_disk / "run").returncode == 0
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = capfilt.run(*command, "--set=judge.threshold={web: 0, synthetic: 0}")
    assert again.returncode == 0, again.stderr
    whole = [*flags(toy_models, toy_shards, tmp_path / "whole"), *HERE]
    capfilt.run(*whole, "--set=judge.threshold={web: 0, synthetic: 0}")
    for name in ("samples", "texts", "decisions"):
        assert table(small_disk / "run", name) == table(tmp_path / "whole", name)
