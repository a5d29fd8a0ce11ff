"""Which errors concern one shard only."""

import errno

import pytest

from flows.engines.engine import EngineError, is_shard_fault
from shards.inputs.shard import InputChanged


@pytest.mark.parametrize(
    "error",
    [
        InputChanged("another size"),
        FileNotFoundError(errno.ENOENT, "gone", "/web/a.tar"),
        PermissionError(errno.EACCES, "denied", "/web/a.tar"),
        OSError(errno.EIO, "a broken disk"),
        ConnectionResetError("the store closed the connection"),
    ],
)
def test_faults_of_one_shard_let_the_others_go_on(error: Exception) -> None:
    assert is_shard_fault(error)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "no space left"),
        OSError(errno.EDQUOT, "over quota"),
        OSError(errno.EROFS, "read-only"),
        OSError(errno.ENOMEM, "no memory"),
        EngineError("no node left"),
        ValueError("a bug"),
        MemoryError(),
    ],
)
def test_what_would_fail_every_shard_ends_the_run(error: Exception) -> None:
    assert not is_shard_fault(error)
