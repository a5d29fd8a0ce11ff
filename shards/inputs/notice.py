"""What a person should hear once, however often it is noticed."""

import logging

_log = logging.getLogger(__name__)
_said: set[str] = set()


def tell_once(message: str) -> None:
    """Warn of something once in a process: an input may be listed by a check, and by the work."""
    if message not in _said:
        _said.add(message)
        _log.warning("%s", message)
