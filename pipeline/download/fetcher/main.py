"""img2dataset's downloader as a process that does one part of a list after the other.

What it imports takes seconds, so it is imported once. A line of JSON on standard input names a
part's folder, which holds `urls.arrow`; in it are written `pictures`, their bytes one behind the
other, and `rows.jsonl`, a line for each address in the order in which they end. Standard output
tells how far it is. The process ends with its input, however its parent ended.
"""

import json
import os
import queue
import sys
import threading
import time
import types
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from pipeline.download.fetcher import guard
from pipeline.download.fetcher.opener import BoundedOpener, Bounds

TOLD_EVERY_S = 0.5
MOST_ROWS = 10**9  # of a part: img2dataset's keys have so many digits, and are row numbers


def main(options: str, out: TextIO) -> None:
    """Do the parts that standard input names."""
    chosen = json.loads(options)
    if not chosen["allow_private"]:
        guard.install()
    opener = BoundedOpener(Bounds(**chosen["bounds"]))
    urllib.request.install_opener(opener)  # type: ignore[arg-type]  # `open` is all that is asked
    downloader_class = _import_downloader()
    _tell(out, ready=True)
    for line in _lines():
        folder = Path(json.loads(line)["folder"])
        try:
            _fetch_part(downloader_class, folder, chosen["threads"], out)
        except Exception as error:  # its parent says what comes of it
            _tell(out, failed=f"{type(error).__name__}: {error}")
        else:
            _tell(out, ended=True)


def _lines() -> Iterator[str]:
    """Yield the lines of standard input; at its end, this process ends at once."""
    waiting: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            waiting.put(line)
        os._exit(0)  # nobody waits for what is under way

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield waiting.get()


def _import_downloader() -> Any:  # noqa: ANN401 - img2dataset has no types
    """Import img2dataset's downloader without its command and its logger.

    They load what is not needed here, for seconds, and some of it calls home.
    """
    for name in ("img2dataset.main", "wandb"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["img2dataset.main"].__dict__.update(main=None, download=None)
    from img2dataset.downloader import Downloader

    return Downloader


def _keep_bytes(stream: BinaryIO, _boxes: object) -> tuple[bytes, None, None, None, None, None]:
    """Take a picture as it came, as img2dataset's resizer does with `disable_all_reencoding`."""
    return stream.read(), None, None, None, None, None


def _fetch_part(
    downloader_class: Any,  # noqa: ANN401 - img2dataset has no types
    folder: Path,
    threads: int,
    out: TextIO,
) -> None:
    writers: list[PartWriter] = []

    def make_writer(*_: Any) -> PartWriter:  # noqa: ANN401 - as img2dataset has it
        writers.append(PartWriter(folder, out))
        return writers[0]

    downloader = downloader_class(
        sample_writer_class=make_writer,
        resizer=_keep_bytes,
        thread_count=threads,
        save_caption=False,
        extract_exif=False,
        output_folder=str(folder),
        column_list=["url"],
        timeout=None,  # the opener has bounds of its own
        number_sample_per_shard=MOST_ROWS,
        oom_shard_count=1,
        compute_hash="sha256",
        verify_hash_type=None,
        encode_format="jpg",
        retries=0,
        user_agent_token=None,
        disallowed_header_directives=[],
    )
    downloader.download_shard((0, str(folder / "urls.arrow")))
    writers[0].check()


class PartWriter:
    """What img2dataset writes a part with."""

    def __init__(self, folder: Path, out: TextIO) -> None:
        self._pictures = (folder / "pictures").open("xb")
        self._rows = (folder / "rows.jsonl").open("x", encoding="utf-8")
        self._out, self._told = out, time.monotonic()
        self._reasons: Counter[str] = Counter()
        self._error: Exception | None = None

    def write(
        self, picture: bytes | None, key: str, _caption: str | None, meta: Mapping[str, Any]
    ) -> None:
        """Take what became of one address; what is raised here img2dataset would swallow."""
        try:
            self._write(picture, int(key), meta)
        except Exception as error:
            self._error = self._error or error
            raise

    def _write(self, picture: bytes | None, row: int, meta: Mapping[str, Any]) -> None:
        now = time.monotonic()
        line: dict[str, Any] = {"row": row, "at": now}
        if picture is not None:
            line |= {"offset": self._pictures.tell(), "bytes": len(picture)}
            line["sha256"] = meta["sha256"]
            self._pictures.write(picture)
            self._reasons["ok"] += 1
        else:
            line |= json.loads(meta["error_message"])  # of a Failure
            self._reasons[line["reason"]] += 1
        self._rows.write(json.dumps(line) + "\n")
        if now - self._told >= TOLD_EVERY_S:
            self._told = now
            _tell(self._out, reasons=self._reasons)

    def check(self) -> None:
        """Raise what a write has raised: a full disk, say."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Write what is left."""
        self._pictures.close()
        self._rows.close()
        _tell(self._out, reasons=self._reasons)


def _tell(out: TextIO, **message: Any) -> None:  # noqa: ANN401 - any JSON values
    out.write(json.dumps(message) + "\n")
    out.flush()


def start() -> None:
    """Begin: standard output is for the parent alone; what libraries print goes to the log."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    main(sys.argv[2], out)
