"""The columns of a list are named by the user, or found by name and content."""

from typing import Any

import pytest

from pipeline.download.columns import Columns, ListError, choose_columns

A, B = "http://a.org/1.jpg", "http://a.org/2.jpg"


def choose(rows: list[dict[str, Any]], **named: str) -> Columns:
    return choose_columns(list(rows[0]), rows, "list.csv", **named)


def test_known_names_are_found_in_any_writing() -> None:
    rows = [{"key": "1", "URL": A, "ALT_TEXT": "a dog", "SHA256": "ab" * 32}]
    assert choose(rows) == Columns("URL", "ALT_TEXT", "SHA256")


def test_a_column_of_addresses_is_found_by_what_it_holds() -> None:
    assert choose([{"where": A, "n": "1"}, {"where": B, "n": "2"}]) == Columns("where")


def test_what_is_named_is_taken_whatever_it_is_called() -> None:
    rows = [{"url": A, "thumb": B, "caption": "x", "words": "y"}]
    assert choose(rows, url="thumb", text="words") == Columns("thumb", "words")


def test_of_known_names_the_one_with_addresses_is_taken() -> None:
    assert choose([{"image": "cat.jpg", "link": A}]).url == "link"


@pytest.mark.parametrize(
    ("rows", "named", "words"),
    [
        ([{"here": A, "there": B}], {}, ["several columns", "'here'", "'there'", "--url-column"]),
        ([{"name": "x", "n": "1"}], {}, ["missing_column", "'name'", "--url-column"]),
        ([{"url": A}], {"text": "alt"}, ["missing_column", "--text-column 'alt'", "'url'"]),
    ],
)
def test_what_cannot_be_chosen_is_told_with_the_columns(
    rows: list[dict[str, Any]], named: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(ListError) as error:
        choose(rows, **named)
    assert [word for word in ["list.csv", *words] if word not in str(error.value)] == []


def test_a_list_without_rows_is_refused() -> None:
    with pytest.raises(ListError, match="empty_table"):
        choose_columns(["url", "caption"], [], "list.csv")


def test_a_hash_is_one_by_its_form_not_by_its_name_alone() -> None:
    assert choose([{"url": A, "md5": "no hash"}]).md5 is None
    assert choose([{"url": A, "md5": "0f" * 16}]).md5 == "md5"
