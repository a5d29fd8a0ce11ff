"""Pictures as they are met in the field: what the manifest says should come of each."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.media.decode import Decoded, DecodeRefusal, decode
from tests.support.hand_made import LIMITS
from tests.support.tars import read_members


@pytest.fixture(scope="module")
def field_cases(data_dir: Path) -> dict[str, tuple[str, dict[str, bytes]]]:
    """Give what is expected of each tar of pictures, and its pictures by key."""
    folder = data_dir / "field_cases"
    if not folder.is_dir():
        pytest.skip(f"no field cases at {folder}")
    rows = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return {
        Path(row["file"]).stem: (row["expected"], pictures(folder / row["file"]))
        for row in rows
        if row["file"].startswith("img_")
    }


def pictures(tar: Path) -> dict[str, bytes]:
    members = {Path(name): data for name, data in read_members(tar)}
    return {name.stem: data for name, data in members.items() if name.suffix != ".txt"}


def test_each_comes_out_as_expected(field_cases: dict[str, Any]) -> None:
    assert len(field_cases) >= 11
    for name, (expected, members) in field_cases.items():
        for key, data in members.items():
            found = decode(data, LIMITS)
            if key == "odd" and "rejected" in expected:
                assert isinstance(found, DecodeRefusal), name
                assert found.reason in expected, name
                continue
            assert isinstance(found, Decoded), (name, key, found)
            if key == "odd" and "with a note" in expected:
                assert found.notes, name
            if key.startswith("good"):
                assert found.notes == (), name


def odd(field_cases: dict[str, Any], name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    found = decode(field_cases[name][1]["odd"], LIMITS)
    assert isinstance(found, Decoded)
    return np.asarray(found.image), found.notes


def test_12_bits_reach_white(field_cases: dict[str, Any]) -> None:
    levels, notes = odd(field_cases, "img_grey_12_of_16")
    assert levels.max() >= 250
    assert notes == ("scaled_16_bit", "low_levels_raised")


def test_around_a_first_frame_is_white(field_cases: dict[str, Any]) -> None:
    levels, _ = odd(field_cases, "img_gif_partial_first")
    is_white = (levels == 255).all(axis=-1)
    rows, columns = np.nonzero(~is_white)
    height, width = is_white.shape
    assert 0 < rows.min() < rows.max() < height - 1
    assert 0 < columns.min() < columns.max() < width - 1


def test_a_blank_first_frame_is_passed_over(field_cases: dict[str, Any]) -> None:
    assert odd(field_cases, "img_gif_blank_first")[1] == ("later_frame_used",)


def test_only_an_end_mark_is_missing(field_cases: dict[str, Any]) -> None:
    assert odd(field_cases, "img_jpeg_no_eoi")[1] == ("end_mark_missing",)
