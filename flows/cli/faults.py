"""What people read of an error, and the exit code that it ends in."""

import errno
import sys

from typer.exceptions import TyperException

from flows.extras import missing_extra
from pipeline.printable import visible
from shards.errors import is_store_error

FAILED = 1
BAD_USAGE = 2


def exit_code_of(error: Exception) -> int:
    """Print one clear message for an expected error and return its exit code; raise any other."""
    if isinstance(error, TyperException):
        return say(error.format_message(), BAD_USAGE)
    code = getattr(type(error), "exit_code", None)
    if isinstance(code, int):
        return say(str(error), code)
    if (extra := missing_extra(error)) is not None:
        advice = f"this needs {extra.package}: pip install 'capfilt[{extra.name}]'"
        return say(advice, BAD_USAGE)
    if isinstance(error, OSError):
        return say(_describe(error), FAILED)
    if is_store_error(error):
        return say(str(error), FAILED)
    raise error


def say(message: str, code: int) -> int:
    """Print what ends a command, and return the code that it ends with."""
    lines = map(visible, message.split("\n"))  # it may quote hostile input
    print("capfilt:", "\n".join(lines), file=sys.stderr)
    return code


def _describe(error: OSError) -> str:
    where = f": {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full{where} ({error.strerror}). What is committed is safe; free some "
            "space and run the same command again"
        )
    return f"{error.strerror or error}{where}"
