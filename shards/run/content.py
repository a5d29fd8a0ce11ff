"""What a data file holds beside the models' numbers, hashed: rows of texts, samples of a clean tar.

In fp32 the last bits of a score depend on the batch that it was computed in; what a run found and
decided does not. So a snapshot is named by this, and not by the bytes of files that hold scores.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from shards.run.record import canonical_json
from shards.schema import TEXTS

SCORES = ("itm", "itm_logit", "itc", "logprob")
TEXT_CONTENT = [name for name in TEXTS.names if name not in SCORES]


class ContentHash:
    """Takes what a file holds, in order."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add_text(self, row: Mapping[str, Any]) -> None:
        """Take a row of the table of texts; a column that it lacks is null."""
        self._add([row.get(name) for name in TEXT_CONTENT])

    def add_clean(
        self, key: str, ext: str, image_sha256: str, record: Mapping[str, Any], text: str
    ) -> None:
        """Take a sample of a clean tar, with its key there; `record` is its KEY.json."""
        texts = [
            {name: value for name, value in row.items() if name not in SCORES}
            for row in record.get("texts", ())
        ]
        self._add([key, ext, image_sha256, {**record, "texts": texts}, text])

    def hexdigest(self) -> str:
        """Return the SHA-256 of what was taken so far."""
        return self._sha256.hexdigest()

    def _add(self, value: Any) -> None:  # noqa: ANN401 - any JSON value
        self._sha256.update(canonical_json(value) + b"\n")
