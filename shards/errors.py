"""Expected failures: the command line prints their message, and ends in their exit code."""

from typing import ClassVar

_MOST_CHARACTERS = 200  # of what another library says; it may quote the file

# Of a store over a network, after all of its client's own tries; none derives from ours.
_CLIENT_ERRORS = ("botocore.", "aiobotocore.", "aiohttp.")


class CapfiltError(Exception):
    """Something failed that may: the message says what, where, and what to do."""

    exit_code: ClassVar[int] = 1


class UsageError(CapfiltError, ValueError):
    """What was asked for cannot be done as it was asked."""

    exit_code: ClassVar[int] = 2


class DamagedFile(CapfiltError, ValueError):  # noqa: N818 - reads as what happened
    """A file of a run that is not as it was written: torn, rotten, gone, or changed by others.

    `where` is its address; an error of another library may stand for what was found there.
    """

    def __init__(self, where: str, expected: str, actual: object) -> None:
        said = " ".join(str(actual).split()) or type(actual).__name__
        self.where, self.expected, self.actual = where, expected, said[:_MOST_CHARACTERS]
        super().__init__(where, expected, self.actual)  # what it is made from again by pickle

    def __str__(self) -> str:
        """Say it in one line, with what to do."""
        return (
            f"{self.where} is damaged: expected {self.expected}, found {self.actual}; "
            "run `capfilt verify RUN --repair`, and do what it says"
        )


def is_store_error(error: Exception) -> bool:
    """Whether a disk or a store over a network failed."""
    kinds = type(error).__mro__
    return isinstance(error, OSError) or any(k.__module__.startswith(_CLIENT_ERRORS) for k in kinds)
