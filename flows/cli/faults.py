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
        return _say(error.format_message(), BAD_USAGE)
    code = getattr(type(error), "exit_code", None)
    if isinstance(code, int):
        return _say(str(error), code)
    if (extra := missing_extra(error)) is not None:
        advice = f"this needs {extra.package}: pip install 'capfilt[{extra.name}]'"
        return _say(advice, BAD_USAGE)
    if isinstance(error, OSError):
        return _say(_describe(error), FAILED)
    if is_store_error(error):
        return _say(str(error), FAILED)
    raise error


def _say(message: str, code: int) -> int:
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
