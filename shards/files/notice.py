"""What a person should hear once, however often it is noticed."""

import logging

_log = logging.getLogger(__name__)
_said: set[str] = set()


def tell_once(message: str) -> None:
    """Warn of something once in a process: an input may be listed by a check, and by the work."""
    if message not in _said:
        _said.add(message)
        _log.warning("%s", "".join(map(_visible, message)))


def _visible(sign: str) -> str:
    """Write what moves a cursor, or is no character, as its number: names hold anything."""
    return sign if sign.isprintable() else ascii(sign)[1:-1]
