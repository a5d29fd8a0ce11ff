"""Tars, read as the standard library reads them."""

import io
import tarfile
from pathlib import Path


def read_members(tar: bytes | str | Path) -> list[tuple[str, bytes]]:
    """Read the name and the content of each file in a tar, in their order."""
    data = tar if isinstance(tar, bytes) else Path(tar).read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        files = [(member.name, opened.extractfile(member)) for member in opened]
        return [(name, file.read()) for name, file in files if file is not None]
