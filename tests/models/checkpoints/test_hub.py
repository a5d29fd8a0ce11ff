"""Models of the hub: fetched once a node, from a cache without a network, in plain words if not."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.blip.config import Role
from models.checkpoints.conversion import BERT, BERT_REVISION
from tests.support.model_hub import COMMIT, ModelHub, giving

LOAD = """
import sys
from pathlib import Path
from models.checkpoints import checkpoint, locate
try:
    pinned = locate.pin("me/captioner")
    print(pinned.revision, checkpoint.info(pinned.folder).digest)
except locate.CheckpointError as error:
    sys.exit(str(error))
"""
VOCABULARY = "from models.checkpoints import conversion; print(conversion.vocabulary(None).size)"


@pytest.fixture
def hub(folders: dict[Role, Path]) -> Iterator[ModelHub]:
    """A hub with one captioner, and files that nobody needs."""
    with giving() as hub:
        files = {path.name: path.read_bytes() for path in folders["captioner"].iterdir()}
        hub.repos["me/captioner"] = files | {"evil.py": b"raise", "tf_model.h5": b"large"}
        yield hub


def start(hub: ModelHub, home: Path, script: str = LOAD, **more: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if "HF_" not in name}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), **more}
    command = [sys.executable, "-c", script]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)


@pytest.mark.slow
def test_processes_that_start_at_once_fetch_each_file_once(hub: ModelHub, tmp_path: Path) -> None:
    working = [start(hub, tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in working]
    assert [process.returncode for process in working] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert outputs[0][0].startswith(COMMIT)
    needed = {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"}
    assert hub.fetched == dict.fromkeys(needed, 1)


@pytest.mark.slow
def test_a_filled_cache_needs_no_network(hub: ModelHub, tmp_path: Path) -> None:
    online = start(hub, tmp_path).communicate(timeout=120)
    hub.fetched.clear()
    hub.revisions.clear()
    offline = start(hub, tmp_path, HF_HUB_OFFLINE="1").communicate(timeout=120)
    assert offline[0] == online[0]
    assert offline[0].startswith(COMMIT)
    assert not hub.fetched
    assert not hub.revisions


def test_an_empty_cache_says_what_to_do(hub: ModelHub, tmp_path: Path) -> None:
    process = start(hub, tmp_path, HF_HUB_OFFLINE="1")
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert len(errors.splitlines()) == 1, errors
    for part in ("'me/captioner'", "HF_HUB_OFFLINE", "hf download me/captioner", "HF_HOME"):
        assert part in errors
    assert not hub.fetched


def test_of_another_familys_model_no_weights_are_fetched(hub: ModelHub, tmp_path: Path) -> None:
    hub.repos["me/captioner"]["config.json"] = b'{"model_type": "florence2"}'
    errors = start(hub, tmp_path).communicate(timeout=120)[1]
    assert "the hub's me/captioner: " in errors
    assert "only BLIP is supported, found florence2" in errors
    assert hub.fetched == {"config.json": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("endpoint", "name", "said"),
    [
        ("http://127.0.0.1:9", "me/captioner", "no connection to http://127.0.0.1:9"),
        ("http://nowhere.invalid", "me/captioner", "no connection to http://nowhere.invalid"),
        (None, "me/nobody", "it has no such model"),
    ],
)
def test_a_hub_that_gives_nothing_is_told_in_words(
    hub: ModelHub, tmp_path: Path, endpoint: str | None, name: str, said: str
) -> None:
    script = LOAD.replace("me/captioner", name)
    errors = start(hub, tmp_path, script, HF_ENDPOINT=endpoint or hub.url).communicate(timeout=120)
    assert said in errors[1]
    assert "Errno" not in errors[1]


def test_the_vocabulary_is_of_one_revision(hub: ModelHub, tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]
    hub.repos[BERT] = {"vocab.txt": "\n".join(words).encode(), "model.safetensors": b"large"}
    process = start(hub, tmp_path, VOCABULARY)
    output, errors = process.communicate(timeout=120)
    assert output == f"{len(words) + 2}\n", errors
    assert hub.fetched == {"vocab.txt": 1}
    assert hub.revisions == {BERT_REVISION}
