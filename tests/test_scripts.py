"""Scripts start, say what they are for, and do their work on little of it."""

import os
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("[!_]*.py"))
SUBJECTS = sorted(
    f"scripts.bench.subjects.{path.stem}"
    for path in (ROOT / "scripts" / "bench" / "subjects").glob("[!_]*.py")
)
# Arguments of a run that is small, and what it prints. The others take half an hour and more, need
# what is not on each machine, or have tests of their own: chaos, fuzz_inputs, benchmark_gpu, and
# the benchmark of cleaning (`test_bench.py`).
SMALL = {
    "-m scripts.bench.subjects.dedup --hashes 20000 --blank 500": "recall 0.9",
    "-m scripts.bench.subjects.evaluation --pictures 12 --frames 60": "videos, under guard or not",
    "-m scripts.bench.subjects.feeding --images 12 --shards 3 --turns 1": "difference hash",
    "-m scripts.bench.subjects.judge --shards 3 --texts 40": "texts",
    "-m scripts.bench.subjects.plan --runs 1 --n 48 --budget 1 --engines=local": "90 % interval",
    "-m scripts.bench.subjects.search {out} --pictures 300": "queries",
    "-m scripts.bench.subjects.training fp32 'capfilt lm'": "s/step",
    "scripts/check_attention.py --pictures 6": "| layer | map |",
    "scripts/demo.py {out}/demo -- --engine local --direct": "capfilt verify",
    "scripts/draw_architecture.py --check": "",
}


@pytest.mark.parametrize("name", [*SCRIPTS, *SUBJECTS])
def test_each_script_says_what_it_is_for(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: each by itself would import torch again."""
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    monkeypatch.setattr(sys, "path", [str(ROOT / "scripts"), *sys.path])
    # by `python -m pytest` that is what the usage would name
    monkeypatch.setattr(sys.modules["__main__"], "__package__", None)
    run = runpy.run_module if name in SUBJECTS else runpy.run_path
    with pytest.raises(SystemExit) as ended:
        run(name if name in SUBJECTS else str(ROOT / "scripts" / name), run_name="__main__")
    assert ended.value.code in (0, None)
    assert f"usage: {name}" in capsys.readouterr().out.replace("Usage", "usage")


@pytest.mark.nightly
@pytest.mark.parametrize("command", SMALL, ids=lambda command: command.split(" --")[0])
def test_a_small_run_ends_well(command: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, *shlex.split(command.format(out=tmp_path))],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert SMALL[command] in done.stdout
