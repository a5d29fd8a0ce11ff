"""Home folders in paths that people write."""

from pathlib import Path

import pytest

from shards.errors import UsageError
from shards.files.home import expand_home
from shards.store import Store


def test_a_leading_tilde_is_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_home("~") == str(tmp_path)
    assert expand_home("~/runs/a~b") == f"{tmp_path}/runs/a~b"
    assert expand_home("~root/x").startswith("/")
    assert Store("~/runs").url("x") == f"{tmp_path}/runs/x"


@pytest.mark.parametrize("path", ["", "a/~", "./~", "/~root", "s3://b/~/x", " ~", "$HOME/x"])
def test_other_paths_stay_as_they_are(path: str) -> None:
    assert expand_home(path) == path


def test_a_user_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"'~no-one/x'.*a folder is \./~no-one$"):
        expand_home("~no-one/x")
    (tmp_path / "~no-one").mkdir()
    assert expand_home("~no-one/x") == "~no-one/x"
