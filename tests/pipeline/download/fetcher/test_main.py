"""What img2dataset writes a part with: a row that cannot be written fails the part."""

import io
import json
from pathlib import Path

import pytest

from pipeline.download.fetcher.main import PartWriter


def test_rows_and_pictures_are_told_and_counted(tmp_path: Path) -> None:
    out = io.StringIO()
    writer = PartWriter(tmp_path, out)
    writer.write(b"abc", "1", None, {"sha256": "x"})
    failure = {"reason": "timeout", "detail": "", "answered": False, "begun": 1.0}
    writer.write(None, "0", None, {"error_message": json.dumps(failure)})
    writer.write(b"de", "2", None, {"sha256": "y"})
    writer.close()
    writer.check()
    lines = list(map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines()))
    assert [line["row"] for line in lines] == [1, 0, 2]
    assert (lines[2]["offset"], lines[2]["bytes"]) == (3, 2)
    assert (tmp_path / "pictures").read_bytes() == b"abcde"
    assert json.loads(out.getvalue()) == {"reasons": {"ok": 2, "timeout": 1}}


def test_what_a_write_raises_is_not_swallowed(tmp_path: Path) -> None:
    writer = PartWriter(tmp_path, io.StringIO())
    with pytest.raises(ValueError, match="Expecting value"):
        writer.write(None, "0", None, {"error_message": "a bug of ours"})
    writer.close()
    with pytest.raises(ValueError, match="Expecting value"):
        writer.check()
