"""The benchmark of cleaning: its arms do the work, and its table says what it took."""

import json
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.bench import arms
from scripts.bench.__main__ import main
from scripts.bench.arms import ARMS, chosen
from scripts.bench.inputs import Inputs
from scripts.bench.meter import Cost, measure
from scripts.bench.table import LEGEND, of_ceilings, rows, text
from scripts.bench.turns import Outcome

SMALL = ["--size=tiny", "--px=64", "--images=3", "--batch=2", "--repeats=2", "--tokens=4"]


@pytest.mark.slow
def open_idle(_: Inputs) -> Callable[[], int]:
    return lambda: 1


def open_interrupted(inputs: Inputs) -> Callable[[], int]:
    """Be interrupted in the second turn."""

    def work() -> int:
        begun = inputs.folder / "begun"
        if begun.exists():
            raise KeyboardInterrupt
        begun.touch()
        return 1

    return work


def open_deadly(_: Inputs) -> Callable[[], int]:
    def work() -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 1

    return work


def open_large(_: Inputs) -> Callable[[], int]:
    return lambda: len(b"1" * (600 << 20)) and 1


def open_large_child(_: Inputs) -> Callable[[], int]:
    command = [sys.executable, "-c", "len(b'1' * (1500 << 20))"]
    return lambda: subprocess.run(command, check=True).returncode + 1


def test_arms_take_turns_and_say_what_they_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "record.md"
    arms = ["--arms", "transformers, encode once", "capfilt", "Data-Juicer"]
    main([*SMALL, *arms, "--json", f"--record={record}", "--peer-python=/absent/python"])
    result = json.loads(capsys.readouterr().out)
    by_name = {arm["arm"]: arm for arm in result["arms"]}
    assert "is not installed" in by_name.pop("Data-Juicer 1.6.1")["skipped"]
    ours = {"capfilt", "capfilt, int8", "capfilt, tiny models"}
    assert by_name.keys() == {"transformers, encode once"} | ours
    for arm in by_name.values():
        assert arm["skipped"] == ""
        assert len(arm["turns"]) == len(arm["ceilings"]) == 2
        for turn in arm["turns"]:
            assert turn["images"] == 3
            assert min(turn["wall_s"], turn["cpu_s"], turn["peak_gib"]) > 0
            assert turn["read_bytes"] > 3 * 10_000  # pictures that are as heavy as photographs
    # of ours, which copies what it keeps
    assert by_name["capfilt"]["turns"][0]["written_bytes"] > 3 * 10_000
    assert "| capfilt |" in record.read_text()


@pytest.mark.nightly
def test_every_arm_does_every_picture(capsys: pytest.CaptureFixture[str]) -> None:
    main([*SMALL, "--repeats=1", "--json"])
    arms = json.loads(capsys.readouterr().out)["arms"]
    assert [arm["arm"] for arm in arms] == [arm.name for arm in ARMS]
    for arm in arms:
        if "is not installed" not in arm["skipped"]:
            slow = arm["arm"] in {"transformers, model card", "Data-Juicer 1.6.1"}
            assert [turn["images"] for turn in arm["turns"]] == [1 if slow else 3], arm


def test_an_arm_that_is_none_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--arms", "ours"]) == 2
    first, *names = capsys.readouterr().err.splitlines()
    assert first == "there is no arm 'ours'; there are"
    assert [name.strip() for name in names] == [arm.name for arm in ARMS]


def test_what_is_interrupted_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By Ctrl-C in the second turn of the second arm."""
    two = (arms.Arm("one", open_idle), arms.Arm("two", open_interrupted))
    monkeypatch.setattr(arms, "ARMS", two)
    assert main([*SMALL]) == 130
    said = capsys.readouterr()
    assert "turns: 2, interrupted" in said.out
    assert "two: interrupted after 1 of 2 turns" in said.out
    assert "one: interrupted" not in said.out
    assert "interrupted: what follows" in said.err


def test_an_arm_that_fails_costs_no_other_its_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = arms.capfilt("broken", "caption.candidates=0")
    dying = arms.Arm("dying", open_deadly)
    monkeypatch.setattr(arms, "ARMS", (broken, dying, *chosen(["capfilt"])[:1]))
    main([*SMALL, "--json"])
    first, second, third = json.loads(capsys.readouterr().out)["arms"]
    assert first["turns"] == second["turns"] == []
    assert "broken, turn 1: " in first["skipped"]
    assert "caption.candidates" in first["skipped"]
    assert second["skipped"] == "dying, turn 1: its process ended by -9"
    assert len(third["turns"]) == 2


def test_no_turn_has_the_memory_of_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Be it of the arm's own process, or of a child of it."""
    large, small = arms.Arm("large", open_large), arms.Arm("small", open_idle)
    monkeypatch.setattr(arms, "ARMS", (large, arms.Arm("child", open_large_child), small))
    main([*SMALL, "--json"])
    peaks = {
        arm["arm"]: [turn["peak_gib"] for turn in arm["turns"]]
        for arm in json.loads(capsys.readouterr().out)["arms"]
    }
    assert max(peaks["small"]) + 0.5 < min(peaks["large"])
    assert max(peaks["small"]) + 0.2 < min(peaks["child"])


def test_the_table_compares_turn_by_turn_and_fits_a_terminal() -> None:
    def costs(*seconds: float) -> list[Cost]:
        return [Cost(10, wall, 2 * wall, 1.5, 0, 10_000, 20_000) for wall in seconds]

    ours = Outcome("capfilt", True, costs(1, 2, 4), [1_000.0] * 3)
    slow = Outcome("loop", True, costs(2, 4, 4), [1_000.0] * 3)
    guest = Outcome("guest", False, costs(20, 20, 20), [1_000.0] * 3)
    cells = rows([slow, guest, ours, Outcome("absent", True, skipped="no")], 40, "capfilt")
    # of each turn: 2, 2 and 1 times; 2.5 of 1,000 images/s x 40 GFLOP
    assert cells[0] == [
        *("loop", "2.50", "2.50-5.00", "2.00", "10%", "1.50", "800", "1.00", "2.00")
    ]
    assert [row[0] for row in cells] == ["loop", "guest", "capfilt"]
    assert cells[1][4] == "-"
    assert cells[2][3] == "1.00"
    assert max(map(len, [*text(cells).splitlines(), *LEGEND.splitlines()])) <= 80


@pytest.mark.parametrize(("tops", "is_quiet"), [((200.0, 290.0), True), ((200.0, 310.0), False)])
def test_a_machine_that_was_not_quiet_is_told_of(tops: tuple[float, float], is_quiet: bool) -> None:
    outcomes = [Outcome("capfilt", True, ceilings=[top]) for top in tops]
    facts = of_ceilings(outcomes)
    assert facts["ceiling, GFLOP/s"] == f"200 to {tops[1]:.0f}"
    assert ("not quiet" in facts) is not is_quiet
    assert of_ceilings([Outcome("absent", True)]) == {"ceiling, GFLOP/s": "not read"}


def test_the_meter_sees_memory_that_is_gone_again() -> None:
    def work() -> int:
        with mmap.mmap(-1, 200 << 20) as memory:  # which no allocator keeps
            for _ in range(200):
                memory.write(b"1" * (1 << 20))
        return 1

    before = measure(lambda: 1).peak_gib
    assert measure(work).peak_gib > before + 0.15
    assert measure(lambda: 1).peak_gib < before + 0.1
