"""Screening: every bad input of the manifest gets its reason, and the good ones beside it pass."""

from pathlib import Path
from typing import Any

from pipeline.clean.screen import ScreenConfig, ScreenedSample, screen
from shards.inputs.reader import ShardReader, State, open_shard
from shards.reasons import SampleReason, TextReason
from shards.schema import SAMPLES, arrow_rows

CONFIG = ScreenConfig()
REJECT = ScreenConfig(on_bad_text="reject")

# What the manifest calls policy, as this code decides it: so it stays until it is meant to change.
DECIDED = {
    "image_only": "text_missing",  # captioned without a web text, as are all with text_...
    "img_extreme_aspect": "image_aspect",
    "img_animated_gif": "first_frame_used",
    "img_trailing_garbage": None,
    "img_solid": "image_blank",
    "img_corrupt_middle": "image_undecodable",
    "txt_latin1": "text_not_utf8",
    "txt_utf16": "text_not_utf8",
    "txt_100kb": "text_too_long",
    "txt_control": "text_cleaned",
    "txt_html": None,
    "txt_rtl": "text_cleaned",
    "txt_csv_formula": None,
    "txt_filename": None,
    "json_broken": "json_unreadable",
    "json_not_object": "json_unreadable",
    "key_dots": None,
    "key_uppercase_ext": None,
    "shard_no_eof": "shard_truncated",
    "shard_empty": "shard_empty",
    "shard_gzip": None,  # read as a stream
    "shard_gzip_truncated": "shard_truncated",
    "shard_no_pairs": "shard_empty",
    "shard_interleaved": None,  # its members are joined
}
STATES = {
    "shard_truncated": State.TRUNCATED,
    "shard_corrupt": State.CORRUPT,
    "shard_empty": State.EMPTY,
    "shard_not_tar": State.NOT_A_TAR,
}


def screened(path: Path, config: ScreenConfig = CONFIG) -> tuple[list[ScreenedSample], ShardReader]:
    with open_shard(str(path)) as file:
        reader = ShardReader(file)
        return [screen(raw, config) for raw in reader], reader


def all_reasons(found: list[ScreenedSample]) -> set[str | None]:
    """Collect everything that the rows give as a cause or as a conversion."""
    facts = [one.facts for one in found]
    causes = {cause for row in facts for cause in (row.get("reason"), row.get("text_reason"))}
    return causes | {note for row in facts for note in row["notes"] or ()}


def rows_of(case: dict[str, Any], found: list[ScreenedSample]) -> list[ScreenedSample]:
    rows = [one for one in found if one.facts["key"] not in case["good_keys"]]
    assert rows, "the bad sample is lost"
    return rows


def test_every_case(cases: list[dict[str, Any]], bad_inputs: Path) -> None:
    wrong = []
    for case in cases:
        found, reader = screened(bad_inputs / case["file"])
        try:
            _check_good(case, found)
            (_check_shard if case["level"] == "shard" else _check_sample)(case, found, reader)
        except AssertionError as error:
            wrong.append(f"{case['case']}: {error}")
    assert not wrong, "\n".join(wrong)


def _check_good(case: dict[str, Any], found: list[ScreenedSample]) -> None:
    ok = {one.facts["key"] for one in found if one.ok}
    assert set(case["good_keys"]) <= ok, f"good keys {case['good_keys']}, ok {ok}"


def _check_sample(case: dict[str, Any], samples: list[ScreenedSample], reader: ShardReader) -> None:
    assert reader.state.state is State.COMPLETE
    rows = rows_of(case, samples)
    reason = DECIDED[case["case"]] if case["policy"] else case["reason"]
    if case["case"] in DECIDED:
        assert case["policy"], "decided here, but the manifest leaves no choice"
    if reason is not None:
        assert reason in all_reasons(rows), f"{reason} is not among {all_reasons(rows)}"
    if reason == SampleReason.DUPLICATE_KEY:
        assert [one.facts["reason"] for one in rows] == [None, reason]
        return
    assert len(rows) == 1
    assert rows[0].ok == (reason not in set(SampleReason))
    if not case["policy"] and reason not in set(TextReason):
        assert rows[0].ok == (case["expected"] == "kept")
    if case["expected"] == "kept":
        assert rows[0].facts["text_reason"] is None


def _check_shard(case: dict[str, Any], samples: list[ScreenedSample], reader: ShardReader) -> None:
    reason = DECIDED[case["case"]] if case["policy"] else case["reason"]
    assert reader.state.state is STATES.get(str(reason), State.COMPLETE)
    if case["expected"] == "shard_rejected":
        assert samples == []
    if case["expected"] == "shard_partial" and not case["policy"]:
        cut = [sample for sample in samples if sample.facts["reason"] == reason]
        assert len(cut) == 1
        assert cut[0].facts["key"] in (case["key"], None)  # a broken header hides the key
    if case["case"] == "shard_interleaved":  # all images, then all texts
        assert samples
        assert all(sample.ok and sample.facts["web_text"] for sample in samples)


def test_nothing_is_decided_that_is_no_case(cases: list[dict[str, Any]]) -> None:
    assert DECIDED.keys() == {case["case"] for case in cases if case["policy"]}


def test_all_rows_fit_the_table(cases: list[dict[str, Any]], bad_inputs: Path) -> None:
    for path in sorted({bad_inputs / case["file"] for case in cases}):
        rows = [{**one.facts, "shard": "s"} for one in screened(path)[0]]
        table = arrow_rows(rows, SAMPLES)
        table.validate(full=True)
        assert all((one["status"] == "ok") == (one["reason"] is None) for one in table.to_pylist())


def test_the_first_of_a_duplicated_key_stays_whole(bad_inputs: Path) -> None:
    """No picture of one with the text of the other."""
    for name in ("key_duplicate_adjacent", "key_duplicate_apart"):
        with open_shard(str(bad_inputs / f"{name}.tar")) as file:
            raws = list(ShardReader(file))
        twice = next(raw.key for raw in raws if raw.reason)
        first = next(raw for raw in raws if raw.key == twice)
        found = screen(first, CONFIG)
        assert found.ok
        assert found.original == first.image
        assert found.facts["web_text"] == " ".join((first.text or b"").decode().split())


def test_the_rotated_picture_stands_upright(cases: list[dict[str, Any]], bad_inputs: Path) -> None:
    case = next(case for case in cases if case["case"] == "img_exif_rotated")
    (row,) = rows_of(case, screened(bad_inputs / case["file"])[0])
    assert f"{row.facts['width']}x{row.facts['height']}" in case["note"]
    assert row.image is not None
    assert row.image.size == (row.facts["width"], row.facts["height"])


def test_bad_texts_reject_if_the_recipe_says_so(
    cases: list[dict[str, Any]], bad_inputs: Path
) -> None:
    faults = {reason.value for reason in TextReason} - {TextReason.LANGUAGE}  # no fault
    bad = [case for case in cases if case["reason"] in faults]
    assert {case["reason"] for case in bad} == faults
    for case in bad:
        (captioned,) = rows_of(case, screened(bad_inputs / case["file"])[0])
        (rejected,) = rows_of(case, screened(bad_inputs / case["file"], REJECT)[0])
        assert captioned.ok
        assert captioned.facts["text_reason"] == case["reason"]
        assert captioned.facts["web_text"] is None
        assert not rejected.ok
        assert rejected.image is None
        assert rejected.facts["reason"] == case["reason"]
