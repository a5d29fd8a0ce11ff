"""The fetcher as its parent sees it: a process in another environment, given part after part."""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from pipeline.download.fetcher.opener import Bounds

# Only our package `pipeline` is known there, and of it what the fetcher needs: its Python has
# packages of its own, and other versions of ours.
_START = (
    "import sys, types; p = types.ModuleType('pipeline'); p.__path__ = [sys.argv[1]]; "
    "sys.modules['pipeline'] = p; from pipeline.download.fetcher.main import start; start()"
)
_PACKAGE = Path(__file__).resolve().parents[2]
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
_ENVIRONMENT = {"DO_NOT_TRACK": "1", "NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled"}


class FetcherLost(RuntimeError):  # noqa: N818 - reads as what happened
    """The fetcher's process is gone, or its img2dataset failed; and what it said last."""


@dataclass(frozen=True, slots=True)
class FetcherOptions:
    """How addresses are fetched; none of it is part of what a download is."""

    python: str
    bounds: Bounds
    threads: int = 64
    allow_private: bool = False

    def as_json(self) -> str:
        """Write what the process is told at its start."""
        return json.dumps(
            {
                "bounds": asdict(self.bounds),
                "threads": self.threads,
                "allow_private": self.allow_private,
            }
        )


class Fetcher:
    """One such process; `close` ends it, and so does the end of this one."""

    def __init__(self, options: FetcherOptions) -> None:
        self.options = options
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self._process = subprocess.Popen(  # noqa: S603 - ours
            [
                options.python,
                *("-I", "-X", "utf8", "-c", _START),
                str(_PACKAGE),
                options.as_json(),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment | _ENVIRONMENT,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is its parent's to hear
        )

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def fetch(self, folder: Path, heard: Callable[[Mapping[str, int]], None]) -> None:
        """Fetch the part in a folder; `heard` is told counts by reason now and then.

        Raises FetcherLost.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"folder": str(folder)}) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise FetcherLost(self._last_words()) from None
        while not (message := self._read()).get("ended"):
            if "failed" in message:
                raise FetcherLost(message["failed"])
            if "reasons" in message:
                heard(message["reasons"])

    def close(self) -> None:
        """End the process, whatever it is at."""
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith("\n"):
            raise FetcherLost(self._last_words())
        return dict(json.loads(line))

    def _last_words(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read()[-4096:].decode("utf-8", "replace").split("\n")
        said = " / ".join(line.strip() for line in lines if line.strip()[:1])
        last = said[-300:] if said else "without a word"
        return f"img2dataset's process ended ({code}): {last}"
