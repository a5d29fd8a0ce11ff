"""A record comes back as it was sealed; no changed byte of it passes for a fact."""

import json
import random

import pytest

from shards.errors import DamagedFile
from shards.run.commit import TextCounts
from shards.run.record import as_model, canonical_json, read_record, record_version, write_record

RECORD = {"name": "é", "rules": {"web": 0.1, "more": [1, None, True]}, "schema_version": 2}


def test_a_record_comes_back() -> None:
    data = write_record(RECORD)
    assert read_record(data, "here") == RECORD
    assert list(json.loads(data)) == [*RECORD, "seal"]


def test_records_without_a_seal_are_read() -> None:
    assert read_record(json.dumps(RECORD).encode(), "here") == RECORD


def test_no_changed_byte_is_read_as_another_fact() -> None:
    data, draw = write_record(RECORD), random.Random(7)
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << draw.randrange(8)
        try:
            record = read_record(bytes(changed), "here")
        except DamagedFile:
            continue
        record.pop(next((key for key in record if key not in RECORD), ""), None)  # a lost seal
        assert record == RECORD


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\0" * 900, b"{", b"[]", b"7", b"\xff\xfe", b"[" * 200_000, b'{"a": NaN}'),
        *(b'{"a": 1' + b"0" * 9_000 + b"}", b'{"a": "\\ud800"}', b'{"seal": 3}', b'{"seal": {}}'),
    ],
)
def test_what_is_no_record_is_damage_in_one_line(data: bytes) -> None:
    with pytest.raises(DamagedFile, match=r"^place/x\.json is damaged: .*--repair") as caught:
        read_record(data, "place/x.json")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_version_is_a_number() -> None:
    assert record_version(RECORD, "schema_version", "here") == 2
    for version in ("2", None, [2]):
        with pytest.raises(DamagedFile, match="here is damaged: expected a number as v"):
            record_version({"v": version}, "v", "here")


def test_what_fits_no_model_is_named() -> None:
    assert as_model(TextCounts, {"in": 3, "kept": 1}, "here") == TextCounts(given=3, kept=1)
    with pytest.raises(DamagedFile, match=r"a TextCounts, found kept: Input should be greater"):
        as_model(TextCounts, {"kept": -1}, "here")


def test_equal_values_share_one_form() -> None:
    assert canonical_json({"b": "é", "a": None}) == '{"a":null,"b":"é"}'.encode()
