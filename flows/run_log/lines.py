"""What happens in a run as lines for people elsewhere, such as Prefect's page: without secrets."""

import logging
from collections.abc import Callable

from flows.run_log.redaction import Redactor, secrets_of


class Lines(logging.Handler):
    """Gives the level and the line of each record to a function; see `heard_by`."""

    def __init__(self, give: Callable[[int, str], None]) -> None:
        super().__init__(logging.INFO)
        self._give, self._redact = give, Redactor(secrets_of(()))

    def emit(self, record: logging.LogRecord) -> None:
        """Give one line; a listener that fails ends nobody's work."""
        try:
            self._give(record.levelno, self._redact(record.getMessage()))
        except Exception:  # a record with the wrong arguments, say
            self.handleError(record)
