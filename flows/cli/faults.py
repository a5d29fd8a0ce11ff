"""What people read of an error, and the exit code that it ends in."""

import errno
import sys

from typer.exceptions import TyperException

from flows.extras import missing_extra
from pipeline.printable import visible

FAILED = 1
BAD_USAGE = 2

# Of a store over a network, after all of its client's own tries; none derives from ours.
_CLIENT_ERRORS = ("botocore.", "aiobotocore.", "aiohttp.")


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
    if any(kind.__module__.startswith(_CLIENT_ERRORS) for kind in type(error).__mro__):
        return _say(str(error), FAILED)
    if isinstance(error, OSError):
        return _say(_describe(error), FAILED)
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
