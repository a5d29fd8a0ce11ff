"""Pushing, to a stand-in for the hub on loopback: what goes wrong says what to do."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub import TOKEN, Hub, serving

PUSH = "import sys; from pathlib import Path; from pipeline.publish.push import PushError, push\n"
PUSH += "try: print(push(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))\n"
PUSH += "except PushError as error: print(error)"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set" / "data").mkdir(parents=True)
    (tmp_path / "set" / "README.md").write_text("a card")
    (tmp_path / "set" / "data" / "train-00000.tar").write_bytes(b"a tar")
    return tmp_path / "set"


def pushed(hub: Hub | str, folder: Path, repo: str, kind: str, token: str = TOKEN) -> str:
    """Push in a process of its own, whose library reads its endpoint once; return what it says."""
    environment = {
        "HF_ENDPOINT": hub if isinstance(hub, str) else hub.url,
        "HF_TOKEN": token,
        "HF_HOME": str(folder.parent / "home"),
    }
    environment |= {"HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}
    command = [sys.executable, "-c", PUSH, str(folder), repo, kind]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_folder_arrives_whole_and_private(hub: Hub, folder: Path) -> None:
    assert pushed(hub, folder, "me/pairs", "dataset") == f"{hub.url}/datasets/me/pairs"
    files = hub.repos["datasets/me/pairs"]
    assert (files["README.md"], files["data/train-00000.tar"]) == (b"a card", b"a tar")
    assert hub.private == {"datasets/me/pairs": True}


def test_a_wrong_token_and_a_wrong_name_are_told(hub: Hub, folder: Path) -> None:
    assert pushed(hub, folder, "me/a/b", "dataset").startswith("me/a/b: ")
    refused = pushed(hub, folder, "me/pairs", "model", token="hf_wrong")
    assert "refuses (HTTP 401); set HF_TOKEN to a token that may write" in refused
    assert not hub.repos


def test_a_hub_that_is_not_there_is_one_line(folder: Path) -> None:
    told = pushed("http://127.0.0.1:9", folder, "me/pairs", "dataset")
    assert "\n" not in told
    assert "127.0.0.1:9 broke off (no connection to http://127.0.0.1:9)" in told
