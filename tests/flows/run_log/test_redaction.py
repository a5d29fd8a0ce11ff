"""Secrets are replaced, by their values and by their forms; the rest of a text stays."""

import json
import time
from urllib.parse import quote

import pytest

from flows.run_log.redaction import MOST_CHARACTERS, Redactor, secrets_of

SECRET = "s3kr/t+Value=42'\"x"


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        repr(SECRET),
        json.dumps({"why": SECRET}),
        f"{SECRET}{SECRET}",
        f"403: key {SECRET}, denied",
    ],
)
def test_a_value_is_hidden_however_it_is_written(written: str) -> None:
    hidden = Redactor([SECRET])(written)
    assert "***" in hidden
    assert "kr" not in hidden
    assert "Value" not in hidden


def test_a_key_of_several_lines_is_hidden_line_by_line() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqh\nkiG9w0BAQEFAASC\n-----END KEY-----\n"
    redact = Redactor([key])
    assert redact(f"cannot parse {key!r}") == "cannot parse '***'"
    assert redact("line 2: kiG9w0BAQEFAASC") == "line 2: ***"


def test_the_longer_of_two_values_is_hidden_whole() -> None:
    assert Redactor(["abcd", "abcdefgh"])("abcdefgh abcd") == "*** ***"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3 at https://me:pa:ss@host:9000/b@c", "s3 at https://***@host:9000/b@c"),
        ("no user: https://host/a@b and s3://bucket/key", None),
        (
            "GET https://b.s3/k?X-Amz-Date=1&X-Amz-Signature=abc123&X-Amz-Credential=AK/x&n=2 403",
            "GET https://b.s3/k?X-Amz-Date=1&X-Amz-Signature=***&X-Amz-Credential=***&n=2 403",
        ),
        ("https://a.blob/x?sv=1&sig=a%2Bb%3D", "https://a.blob/x?sv=1&sig=***"),
        ("https://hub/x?token=abc'", "https://hub/x?token=***'"),
        ("{'password': 'hunter2', 'user': 'me'}", "{'password': '***', 'user': 'me'}"),
        ('{"aws_secret_access_key": "abc", "n": 1}', '{"aws_secret_access_key": "***", "n": 1}'),
        ("AWS_SECRET_ACCESS_KEY=abc AWS_REGION=eu", "AWS_SECRET_ACCESS_KEY=*** AWS_REGION=eu"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("{'Authorization': 'Basic bWU6cGFzcw=='}", "{'Authorization': 'Basic ***'}"),
        ("sent bearer eyJhbGciOiJIUzI1NiJ9.e30", "sent bearer ***"),
        ("401 for hf_abcdefghijklmnopqrst", "401 for ***"),
        ("--set=caption.max_tokens=20 --set=score.max_tokens=35", None),
        ("unexpected token: '}' in a basic understanding of keys", None),
        ("a pictures of /tmp/tokens/key.tar, user@example.org", None),
    ],
)
def test_what_has_a_secrets_form_is_hidden_and_nothing_else(
    text: str, expected: str | None
) -> None:
    assert Redactor()(text) == (text if expected is None else expected)


def test_variables_are_secret_by_their_names_or_because_they_are_forwarded() -> None:
    environment = {
        "AWS_SECRET_ACCESS_KEY": "long-secret",
        "MY_PASSWORD": "hunter2!",
        "API_TOKEN": "short",
        "ENDPOINT": "https://inside",
        "PIN": "123",
        "PWD": "/home/me/work",
        "HOME": "/home/me",
    }
    found = secrets_of(["ENDPOINT", "PIN", "API_TOKEN", "UNSET"], environment)
    assert found == {"long-secret", "hunter2!", "https://inside", "short"}
    assert secrets_of([], environment) == {"long-secret", "hunter2!"}


@pytest.mark.parametrize(
    "piece",
    ["://", "a://a@", "token", "token ", "password=", "api_key_", "?sig=", "bearer ", "a@b/"],
)
def test_hostile_texts_take_no_time(piece: str) -> None:
    redact, text = Redactor([SECRET]), piece * (4_000_000 // len(piece))
    begun = time.perf_counter()
    redact(text)
    assert time.perf_counter() - begun < 1


def test_a_secret_that_a_cut_goes_through_is_not_shown_by_half() -> None:
    value = "".join(f"{number:05}" for number in range(400))
    for offset in (1, 10, 1_000, len(value) - 1):
        text = "." * (MOST_CHARACTERS - offset) + value * 40
        hidden = Redactor([value])(text)
        assert set(hidden) <= {".", "*"}
