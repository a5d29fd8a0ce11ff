"""A server of chat completions, and how it is asked."""

from collections.abc import Iterator
from typing import Any

import pytest

from models.captioners import chat
from models.captioners.config import EndpointCaptionerConfig
from tests.support.chat_server import ChatServer, Settings, chatting


@pytest.fixture(scope="session")
def running_server() -> Iterator[ChatServer]:
    with chatting() as running:
        yield running


@pytest.fixture
def server(running_server: ChatServer) -> ChatServer:
    running_server.forget()
    return running_server


@pytest.fixture
def settings(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Make a section of a recipe for that server, which is asked again soon."""
    monkeypatch.setattr(chat, "_FIRST_PAUSE_S", 0.02)

    def make(**changes: Any) -> EndpointCaptionerConfig:
        usual = {"base_url": server.url, "model": "seer", "image_format": "png", "tries": 3}
        return EndpointCaptionerConfig(kind="endpoint", **usual | changes)

    return make
