"""The same pairs in every order and packing that people make tars in: the same tables.

`pytest -m nightly --log-cli-level=INFO` tells the time and the memory of each.
"""

import io
import logging
import random
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.support.driving import committed, table, wait_until
from tests.support.tars import read_members
from tests.support.toy_run import clean_world

_log = logging.getLogger(__name__)

Members = list[tuple[str, bytes]]
CLEAN = (
    "import sys, resource; from pathlib import Path; from tests.support.toy_run import clean_world;"
    "clean_world(Path(sys.argv[1]), Path(sys.argv[2]));"
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
)


def beside(members: Members) -> Members:
    """Give each pair a mask and a second sidecar."""
    keys = dict.fromkeys(name.partition(".")[0] for name, _ in members)
    masks = dict(members)
    return [
        field
        for key in keys
        for field in (
            (f"{key}.mask.jpg", masks[f"{key}.jpg"]),
            (f"{key}.info.json", b'{"url": "of no interest"}'),
            (f"{key}.blip.txt", b"a caption of another model"),
        )
    ]


def write(path: Path, members: Members, mode: str = "w") -> None:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def plain(path: Path, members: Members) -> None:
    """Pack a folder as `tar -cf` does: in the order in which the folder lists its files."""
    folder = path.parent.parent / "loose"
    folder.mkdir(exist_ok=True)
    shuffled = list(members)
    random.Random(2).shuffle(shuffled)
    for name, data in shuffled:
        (folder / name).write_bytes(data)
    subprocess.run(["tar", "-cf", path, "-C", folder, "."], check=True)


def shuffled(path: Path, members: Members) -> None:
    order = [*members, *beside(members)]
    random.Random(1).shuffle(order)
    write(path, order)


ORDERS: dict[str, Callable[[Path, Members], None]] = {
    "sorted": write,
    "plain": plain,
    "beside": lambda path, members: write(path, sorted([*members, *beside(members)])),
    "gzip": lambda path, members: write(path, members, "w:gz"),
    "random": shuffled,
}


def tables(run: Path) -> dict[str, Any]:
    """Read what is told of each key, without places; scores to a few digits, as batches differ."""
    keys: dict[int, str] = {}
    told: dict[str, Any] = {}
    for name in ("samples", "texts", "decisions"):
        (file,) = (run / "data" / name).glob("*.parquet")
        for row in pq.read_table(file).to_pylist():
            keys.setdefault(row["index"], row.get("key", ""))
            place = f"{name} {keys[row.pop('index')]} {row.pop('text_no', '')}"
            told[place] = {
                field: pytest.approx(value, abs=1e-4) if isinstance(value, float) else value
                for field, value in row.items()
                if field != "shard"
            }
    return told


def alone(world: Path, run: Path) -> None:
    """Clean in a process of its own, and tell its time and memory."""
    begin = time.monotonic()
    command = [sys.executable, "-c", CLEAN, str(world), str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = time.monotonic() - begin
    _log.info("%s: %.1f s, %s MB", world.name, seconds, done.stdout.strip())


def check(pairs: Members, folder: Path, clean: Callable[[Path, Path], None]) -> None:
    expected: dict[str, Any] = {}
    for order, pack in ORDERS.items():
        (folder / order).mkdir()
        pack(folder / order / "web.tar", pairs)
        run = folder / f"run-{order}"
        clean(folder / order, run)
        found = tables(run)
        assert sum(place.startswith("samples") for place in found) == len(pairs) // 2
        assert all(row.get("status", "ok") == "ok" for row in found.values())
        expected = expected or found
        assert found == expected, order


@pytest.fixture
def pairs(data_dir: Path) -> Members:
    shards = sorted((data_dir / "pairs" / "shards").glob("*.tar"))
    members = [
        (f"{number}_{name}", data)
        for number, path in enumerate(shards)
        for name, data in read_members(path)
        if name.endswith((".jpg", ".txt"))
    ]
    both = {name[:-4] for name, _ in members if name.endswith(".jpg")}
    both &= {name[:-4] for name, _ in members if name.endswith(".txt")}
    return sorted(member for member in members if member[0][:-4] in both)


def test_a_few_pairs(pairs: Members, tmp_path: Path) -> None:
    check(pairs[:16], tmp_path, clean_world)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_many_pairs(pairs: Members, tmp_path: Path) -> None:
    check(pairs[:400], tmp_path, alone)


@pytest.mark.nightly
@pytest.mark.parametrize("order", ORDERS)
def test_a_killed_run_is_taken_up_whatever_the_order(
    order: str, pairs: Members, tmp_path: Path
) -> None:
    world, whole, broken = (tmp_path / name for name in ("world", "whole", "broken"))
    world.mkdir()
    starts = range(0, 240, 40)
    for start in starts:
        ORDERS[order](world / f"web-{start:03d}.tar", pairs[start : start + 40])
        shutil.rmtree(tmp_path / "loose", ignore_errors=True)
    clean_world(world, whole)
    process = subprocess.Popen([sys.executable, "-c", CLEAN, str(world), str(broken)])
    wait_until(lambda: len(committed(broken)) >= 2)
    process.kill()
    process.wait()
    kept = {path: path.read_bytes() for path in (broken / "commits").glob("*.json")}
    assert 2 <= len(kept) < len(starts), "the run was over before it was killed"
    clean_world(world, broken)
    assert {path: path.read_bytes() for path in kept} == kept
    for name in ("samples", "decisions"):
        assert table(broken, name) == table(whole, name)
    both = zip(table(broken, "texts"), table(whole, "texts"), strict=True)
    assert all(row[:6] == other[:6] for row, other in both)
    assert len(table(whole, "samples")) == 120
