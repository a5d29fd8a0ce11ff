"""The display of a training: lines at a pipe, a bar on a terminal, nothing before it begins."""

import pytest

from flows.cli.training_progress import watch_training

LINE = {"step": 4, "samples": 40, "loss": 1.25, "rate": 0.1, "lm": 0.5, "samples_per_s": 20.0}


def test_a_pipe_gets_a_line_for_each_line_of_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    with watch_training(10) as show:
        show({"step": 2})
        show(LINE)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "step 4 of 10: loss 1.250  lm 0.500, 20 samples/s, 3 s left\n"


def test_a_terminal_gets_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    with watch_training(10) as show:
        show({"step": 2})
        show(LINE)
    err = capsys.readouterr().err
    assert "training" in err
    assert "loss 1.250  lm 0.500" in err
    assert "4/10" in err
    assert "samples/s" not in err


def test_a_training_that_was_done_before_shows_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with watch_training(10):
        pass
    assert capsys.readouterr().err == ""
