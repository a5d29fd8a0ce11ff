"""What a worker checks before it works: whose packages it would get."""

import subprocess
import sys
from pathlib import Path

from flows.engines.ray_session import check_packages

ROOT = Path(__file__).resolve().parents[3]
CHECK = f"import sys; sys.path.append({str(ROOT)!r}); import flows.engines.ray_session as s; "


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
