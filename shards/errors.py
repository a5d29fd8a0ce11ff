"""Expected failures: the command line prints their message, and ends in their exit code."""

from typing import ClassVar


class CapfiltError(Exception):
    """Something failed that may: the message says what, where, and what to do."""

    exit_code: ClassVar[int] = 1


class UsageError(CapfiltError, ValueError):
    """What was asked for cannot be done as it was asked."""

    exit_code: ClassVar[int] = 2
