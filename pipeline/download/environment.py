"""The Python that has img2dataset, in an environment of its own, and what to do without one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from shards.errors import UsageError

VARIABLE = "CAPFILT_IMG2DATASET"
FOLDER = ".venv-img2dataset"
VERSION = "1.47.0"
REQUIREMENTS = Path(__file__).resolve().parent / "img2dataset.txt"
_HOME = Path(__file__).resolve().parents[2]
_ASK = "from importlib.metadata import version as v; print(v('img2dataset'))"


class NoImg2dataset(UsageError):  # noqa: N818 - reads as what happened
    """No Python with img2dataset, or with another version of it."""


def find_python(named: str | None = None) -> str:
    """Return the Python that has img2dataset: the one named, or one of those in known places.

    Raises NoImg2dataset, which says how to make one.
    """
    if named:
        return _checked(named)
    for python in _known_places():
        if python.is_file():
            return _checked(str(python))
    raise NoImg2dataset(f"`capfilt download` needs img2dataset, and finds none. {_advice()}")


def _known_places() -> Iterator[Path]:
    """Look beside the environment that capfilt runs in, and in the checkout, if it is one."""
    if set_by := os.environ.get(VARIABLE):
        yield Path(set_by)
        return
    for folder in (Path(sys.prefix).parent, _HOME):
        yield folder / FOLDER / "bin" / "python"


@cache
def _checked(python: str) -> str:
    """Ask a Python for its img2dataset, without loading it."""
    try:
        asked = subprocess.run(  # noqa: S603 - the user names it
            [python, "-I", "-c", _ASK], capture_output=True, text=True, timeout=60, check=False
        )
    except OSError as error:
        raise NoImg2dataset(f"{python} cannot be run: {error.strerror}. {_advice()}") from None
    version = asked.stdout.strip()
    if version != VERSION:
        found = f"has img2dataset {version}" if version else "has no img2dataset"
        raise NoImg2dataset(f"{python} {found}; expected {VERSION}. {_advice()}")
    return python


def _advice() -> str:
    folder = Path(sys.prefix).parent / FOLDER
    return (
        "It lives in an environment of its own, since its packages do not go with capfilt's. In a "
        f"checkout, `make install` makes it; elsewhere: python -m venv {folder} && "
        f"{folder}/bin/pip install -r {REQUIREMENTS}. Or name one by --img2dataset PYTHON, or "
        f"{VARIABLE}"
    )
