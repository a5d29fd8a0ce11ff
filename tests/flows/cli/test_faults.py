"""What each kind of error tells, and the exit code that it ends in."""

import errno

import aiohttp
import pytest
import typer
from botocore.exceptions import ClientError

from flows.cli.faults import exit_code_of
from shards.errors import CapfiltError, UsageError


class TaskError(Exception):
    """What a library of clusters raises for a task that failed."""


class TaskUsageError(TaskError, UsageError):
    """The same for a task that failed by an error of ours: Ray derives from both."""


class BucketError(TaskError, ClientError):
    """A store's error as a library of clusters hands it on."""


GONE = "An error occurred (404) when calling the GetObject operation: Unknown"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UsageError("no run there"), 2, "no run there"),
        (CapfiltError("it broke"), 1, "it broke"),
        (typer.BadParameter("expected i/n"), 2, "Invalid value: expected i/n"),
        (TaskUsageError("no such column"), 2, "no such column"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.tar"), 1, "No such file: a.tar"),
        (OSError("connection lost"), 1, "connection lost"),
        (
            OSError(errno.ENOSPC, "No space left on device", "run/data"),
            1,
            "the disk is full: run/data (No space left on device). What is committed is safe; "
            "free some space and run the same command again",
        ),
        (aiohttp.ServerDisconnectedError(), 1, "Server disconnected"),
        (BucketError({"Error": {"Code": "404"}}, "GetObject"), 1, GONE),
        (UsageError("no key '\x1b[2J\u202e'\nlook"), 2, "no key '␛[2J\\u202e'\nlook"),
    ],
)
def test_an_expected_error_is_one_message(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int, message: str
) -> None:
    assert exit_code_of(error) == code
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"capfilt: {message}\n")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        KeyError("a bug"),
        ModuleNotFoundError("No module named 'pipeline.gone'", name="pipeline.gone"),
        ImportError("cannot import name 'gone' from 'av'", name="av"),
    ],
)
def test_a_bug_is_raised(capsys: pytest.CaptureFixture[str], error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        exit_code_of(error)
    assert raised.value is error
    assert capsys.readouterr().err == ""
