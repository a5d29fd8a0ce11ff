"""What `capfilt explain` shows fits 80 columns, and steers no terminal."""

from collections.abc import Callable

import pytest
from rich.cells import cell_len

from tests.support.driving import InProcess
from tests.support.hostile_run import KEYS

Harmless = Callable[[str], bool]


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("key", KEYS)
def test_nothing_hostile_reaches_the_terminal(
    capfilt: InProcess, key: str, harmless: Harmless
) -> None:
    assert capfilt.run("judge", "run", "--name=strict", "--threshold=synthetic=0.7").returncode == 0
    done = capfilt.run("explain", "run", f"00000/{key}")
    assert done.returncode == 0, done.stderr
    assert harmless(done.stdout)
    assert all(cell_len(line) <= 80 for line in done.stdout.splitlines())
    if key == "plain":
        assert "[red]markup[/] [/] [link=" in done.stdout  # shown, not obeyed
        assert ":boom:" in done.stdout
        assert r"\u202ereversed\u2066" in done.stdout
