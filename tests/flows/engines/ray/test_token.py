"""The token of Ray is for its user alone, and a user's own stays as it is."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from flows.engines.ray.token import TOKEN, make_token

START = """
from flows.engines.ray.session import ray_session
with ray_session(None):
    pass
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and an umask that lets all read."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_nobody_else_reads_the_token(home: Path) -> None:
    before = os.umask(0)
    try:
        make_token()
    finally:
        os.umask(before)
    assert mode(home / TOKEN) == 0o600
    assert mode(home / ".ray") == 0o700
    assert len((home / TOKEN).read_text()) == 64
    assert [path.name for path in (home / ".ray").iterdir()] == [TOKEN.name]


def test_a_token_that_is_there_stays(home: Path) -> None:
    (home / ".ray").mkdir(mode=0o755)
    (home / TOKEN).write_text("mine")
    (home / TOKEN).chmod(0o640)
    make_token()
    assert ((home / TOKEN).read_text(), mode(home / TOKEN)) == ("mine", 0o640)


@pytest.mark.parametrize(
    ("name", "value"),
    [("RAY_AUTH_MODE", "disabled"), ("RAY_AUTH_TOKEN", "t"), ("RAY_AUTH_TOKEN_PATH", "/t")],
)
def test_the_users_variables_are_heeded(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    make_token()
    assert not (home / ".ray").exists()


@pytest.mark.slow
def test_rays_own_start_leaves_it_to_its_user(home: Path, loopback_only: list[str]) -> None:
    command = [*loopback_only, sys.executable, "-c", START]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert mode(home / TOKEN) == 0o600
