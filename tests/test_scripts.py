"""Scripts start, say what they are for, and do their work on little of it."""

import os
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))
# Arguments of a run that is small, and what it prints. The others take half an hour and more, need
# what is not on each machine, or have tests of their own: chaos and fuzz_inputs.
SMALL = {
    "benchmark_clean.py --size tiny --px 64 --images 4 --batch 2 --repeats 1": "| ratio | ",
    "benchmark_evaluation.py --pictures 12 --frames 60": "videos, under guard or not",
    "benchmark_judge.py --shards 3 --texts 40": "texts",
    "benchmark_search.py {out} --pictures 300": "queries",
    "benchmark_training.py fp32 'capfilt lm'": "s/step",
    "check_attention.py --pictures 6": "| layer | map |",
    "demo.py {out}/demo -- --engine local --direct": "capfilt verify",
    "draw_architecture.py --check": "",
    "measure_plan.py --runs 1 --n 48 --budget 1 --engines local": "inside its 90 % interval",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_script_says_what_it_is_for(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: each by itself would import torch again."""
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    monkeypatch.setattr(sys, "path", [str(ROOT / "scripts"), *sys.path])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts" / name), run_name="__main__")
    assert ended.value.code in (0, None)
    assert f"usage: {name}" in capsys.readouterr().out.replace("Usage", "usage")


@pytest.mark.slow
@pytest.mark.parametrize("command", SMALL, ids=lambda command: command.split(".py")[0])
def test_a_small_run_ends_well(command: str, tmp_path: Path) -> None:
    name, *arguments = shlex.split(command.format(out=tmp_path))
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / name), *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert SMALL[command] in done.stdout
