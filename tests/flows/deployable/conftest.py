"""A Prefect server for flows that are called in the process of the tests."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_HOME,
    temporary_settings,
)

from flows.following.server import EMPTY, OwnServer, own_server
from tests.support.driving import wait_until
from tests.support.prefect_server import answers


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[OwnServer]:
    """A server that answers."""
    home = tmp_path_factory.mktemp("server")
    shutil.copyfile(empty_database, home / EMPTY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(home))
        with own_server("of tests") as server:
            wait_until(lambda: answers(server.settings["PREFECT_API_URL"]))
            yield server
            for worker in (APILogWorker, EventsWorker):  # or they wait for a server that is gone
                worker.drain_all(timeout=5)


@pytest.fixture
def prefect(server: OwnServer) -> Iterator[SyncPrefectClient]:
    """What flows called here report to."""
    settings = {
        setting: server.settings[setting.name]
        for setting in (PREFECT_API_URL, PREFECT_API_AUTH_STRING, PREFECT_HOME)
    }
    with temporary_settings(settings), get_client(sync_client=True) as client:
        yield client
