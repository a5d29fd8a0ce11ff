"""What the user is told of an error, and the exit code that it ends in."""

import errno
import sys

from typer.exceptions import TyperException

FAILED = 1
BAD_USAGE = 2

# By name: importing the classes would load torch and Ray for every `--help`.
_BAD_USAGE = {
    "AnnotationError",
    "RecipeError",
    "InputError",
    "InputMismatch",
    "CheckpointError",
    "ExportFault",
    "FolderInUse",
    "IndexFault",
    "LedgerError",
    "NotARun",
    "RunMismatch",
    "SchemaError",
    "SnapshotError",
    "ViewError",
    "QueryError",
    "NoSuchSample",
    "SourceError",
    "TrackerError",
}
_FAILED = {
    "BotoCoreError",  # S3 that cannot be reached, after all of its client's own tries
    "ClientError",
    "EngineError",
    "FeedError",
    "GarbageError",
    "GuardError",
    "InputChanged",
    "JavaFault",
    "LimitExceeded",
    "PushError",
    "RepairError",
    "StateError",
    "TrainingDiverged",
    "WriteCheckError",
}


def exit_code_of(error: Exception) -> int:
    """Print one clear message for an expected error and give its exit code; raise any other."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, TyperException):
        return _say(error.format_message(), BAD_USAGE)
    if names & _BAD_USAGE:
        return _say(str(error), BAD_USAGE)
    if names & _FAILED:
        return _say(str(error), FAILED)
    if isinstance(error, OSError):
        return _say(_describe(error), FAILED)
    raise error


def _say(message: str, code: int) -> int:
    from pipeline.printable import visible

    shown = "\n".join(visible(line) for line in message.split("\n"))  # it may quote hostile input
    print(f"capfilt: {shown}", file=sys.stderr)
    return code


def _describe(error: OSError) -> str:
    where = f": {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full{where} ({error.strerror}). What is committed is safe; free some "
            "space and run the same command again"
        )
    return f"{error.strerror or error}{where}"
