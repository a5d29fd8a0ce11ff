"""Fixtures that every room shares."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# Models of a few thousand parameters gain nothing from threads, and lose much to other processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Started in the background they would ignore Ctrl-C, and so would the commands that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no fault of the code: pytest-timeout bounds each test.
settings.register_profile("capfilt", deadline=None)
settings.load_profile("capfilt")

pytest_plugins = ["tests.support.fixtures"]  # of the command, for whoever runs it

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Call flows after all else: behind them Prefect has threads, and forks fail (3.8.8).

    With several processes the order holds by --no-loadscope-reorder, as `make test` says.
    """
    items.sort(key=lambda item: "deployable" in item.path.parts)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked `gpu` where torch sees none."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("torch sees no GPU")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real pairs, bad inputs and numeric references; tests skip where they are absent."""
    folder = Path(os.environ.get("CAPFILT_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}: set CAPFILT_TEST_DATA to the folder that holds it")
    return folder
