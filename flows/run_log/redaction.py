"""Secrets kept out of texts: by their values, and by the forms that they come in."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote

HIDDEN = "***"
MOST_CHARACTERS = 65_536  # of a text that is looked through; what comes behind is left out
FORWARDED_FROM, NAMED_FROM = 4, 8  # characters; a shorter value stands in too many words

_SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSW|PASSPHRASE|_PASS\b|_PWD\b|CREDENTIAL|SIGNATURE")
_QUERY = r"x-(?:amz|goog)-(?:credential|security-token)|sig|token|code|key|auth"
_NAMES = (
    r"passw(?:or)?d|passphrase|secret|token|signature|credentials?"
    r"|(?:api|account|access|private)[_-]?key"
)
_FORMS = (
    re.compile(r"(?i)(?<=://)[^/\s?#\"'<>]*(?=@)"),  # user:password
    re.compile(rf"(?i)(?<=[?&;])((?:{_QUERY})=)[^&\s\"'<>]+"),  # of a signed URL
    re.compile(rf"(?i)((?:{_NAMES})(?:[\"']?\s*=|[\"']\s*:)\s*[\"']?)[^\s\"',;&]+"),
    re.compile(r"(?i)(\bauthorization[\"']?\s*[=:]\s*[\"']?(?:bearer|basic)?\s*)[^\s\"',;&]+"),
    re.compile(r"(?i)(\bbearer\s+)[a-z0-9._~+/=-]{16,}"),
    re.compile(r"\bhf_[A-Za-z0-9]{16,}"),
)


class Redactor:
    """Replaces secrets in texts by `***`."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        """Hide these values, as they are and as URLs have them, and what has a secret's form."""
        forms = {form for value in values for form in _forms(value)}
        self._longest = max(map(len, forms), default=0)
        longest_first = sorted(forms, key=len, reverse=True)
        self._values = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def __call__(self, text: str) -> str:
        """Return a text without secrets; of a very long one, its beginning."""
        cut = len(text) > MOST_CHARACTERS
        text = self._values.sub(HIDDEN, text[:MOST_CHARACTERS])
        if cut and self._longest:
            text = text[: -self._longest]  # where the first half of one may be left
        for form in _FORMS:
            text = form.sub(_hide, text)
        return text


def secrets_of(forwarded: Iterable[str], environment: Mapping[str, str] = os.environ) -> set[str]:
    """Collect the values of forwarded variables, and of those that are named like secrets."""
    values = {environment.get(name, "") for name in forwarded}
    secrets = {value for value in values if len(value) >= FORWARDED_FROM}
    return secrets | {
        value
        for name, value in environment.items()
        if len(value) >= NAMED_FROM and _SECRET_NAME.search(name.upper())
    }


def _forms(value: str) -> Iterator[str]:
    """Yield how a value may stand in a text; of several lines, each may stand alone."""
    for part in (value, *(line for line in value.splitlines() if len(line) >= NAMED_FROM)):
        yield part
        yield quote(part)
        yield quote(part, safe="")
        yield repr(part)[1:-1]
        yield json.dumps(part)[1:-1]


def _hide(match: re.Match[str]) -> str:
    return (match[1] if match.lastindex else "") + HIDDEN
