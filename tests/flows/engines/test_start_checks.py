"""What a worker checks before it works: code, run folder, inputs, disk, whose packages it gets."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.engines.engine import EngineError
from flows.engines.start_checks import (
    Demands,
    MachineUnfit,
    Requirements,
    check_machine,
    check_packages,
    code_digest,
    requirements,
)

ROOT = Path(__file__).resolve().parents[3]
CHECK = f"import sys; sys.path.append({str(ROOT)!r}); import flows.engines.start_checks as s; "


@pytest.fixture
def needed(tmp_path: Path) -> Iterator[Requirements]:
    """What the driver of a run over three shards in two folders demands."""
    urls = []
    for name in ("a/0.tar", "a/1.tar", "b/0.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
        urls.append(str(tmp_path / name))
    (tmp_path / "run").mkdir()
    with requirements(Demands(str(tmp_path / "run"), tuple(urls), 1000)) as demands:
        yield demands


def test_a_machine_that_has_everything_passes(needed: Requirements, tmp_path: Path) -> None:
    assert needed.inputs == (str(tmp_path / "a/0.tar"), str(tmp_path / "b/0.tar"))
    check_machine(needed)


def test_stores_are_looked_at_once_each(tmp_path: Path) -> None:
    urls = ["s3://x/a/0.tar", "s3://x/b/1.tar", "s3://y/0.tar", "/a/0.tar", "/b/0.tar"]
    with requirements(Demands(str(tmp_path), tuple(urls))) as demands:
        assert demands.inputs == ("s3://x/a/0.tar", "s3://y/0.tar", "/a/0.tar", "/b/0.tar")


def test_the_drivers_file_is_gone_at_the_end(tmp_path: Path) -> None:
    with requirements(Demands(str(tmp_path), ())) as demands:
        assert [path.name for path in tmp_path.iterdir()] == [demands.probe]
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_only_reads_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with requirements(Demands(str(tmp_path), (), writes=False)) as demands:
        assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
        check_machine(demands)
        (tmp_path / "run.json").write_text('{"another": 1}')
        with pytest.raises(MachineUnfit, match=r"run\.json is another file there"):
            check_machine(demands)
    assert (tmp_path / "run.json").exists()


def test_another_capfilt_is_refused(needed: Requirements) -> None:
    other = dataclasses.replace(needed, code="0123456789abcdef")
    with pytest.raises(MachineUnfit, match=rf"code {code_digest()}.*expected the driver's .*0123"):
        check_machine(other)


def test_a_run_folder_of_the_same_name_that_is_not_the_drivers_is_refused(
    needed: Requirements, tmp_path: Path
) -> None:
    (tmp_path / "local").mkdir()
    elsewhere = dataclasses.replace(needed, run_url=str(tmp_path / "local"))
    with pytest.raises(MachineUnfit, match=r"not there as the driver sees it.*all machines share"):
        check_machine(elsewhere)


def test_an_input_that_cannot_be_read_is_named(needed: Requirements, tmp_path: Path) -> None:
    (tmp_path / "b/0.tar").unlink()
    with pytest.raises(MachineUnfit, match=r"the input .*b/0\.tar cannot be read there"):
        check_machine(needed)


def test_a_full_disk_is_told_before_any_work(needed: Requirements) -> None:
    hungry = dataclasses.replace(needed, scratch_bytes=10**15)
    with pytest.raises(MachineUnfit, match=r"GB free; a worker needs 1000000\.0 GB"):
        check_machine(hungry)


def test_credentials_travel_and_are_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPFILT_TEST_SECRET", "hush")
    with requirements(Demands(str(tmp_path), ()), ["CAPFILT_TEST_SECRET"]) as demands:
        assert "hush" not in repr(demands)
        monkeypatch.delenv("CAPFILT_TEST_SECRET")
        check_machine(demands)
        assert os.environ["CAPFILT_TEST_SECRET"] == "hush"
        monkeypatch.delenv("CAPFILT_TEST_SECRET")


def test_a_credential_that_is_not_set_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(EngineError, match=r"forward_env names CAPFILT_NOT_SET, not set"),
        requirements(Demands(str(tmp_path), ()), ["CAPFILT_NOT_SET", "PATH"]),
    ):
        pass


def test_our_own_packages_pass() -> None:
    check_packages()


def test_a_strangers_package_of_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").touch()
    # put first when all of ours but models is loaded, as a user's PYTHONPATH would
    script = f"{CHECK} sys.modules.pop('models', None); "
    script += f"sys.path.insert(0, {str(tmp_path)!r}); s.check_packages()"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 1
    message = ended.stderr.splitlines()[-1]
    assert f"found the package models in {tmp_path / 'models'}, expected it in {ROOT}" in message
    assert "Rename that folder, or take it off PYTHONPATH" in message
