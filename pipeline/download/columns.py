"""Which column of a list holds the addresses, which the texts: named by the user, or guessed."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.download.address import BadAddress, mend
from shards.errors import UsageError

# as lists name them, in the order of trust; written without case and signs
_URL_NAMES = (
    "url", "imageurl", "imgurl", "imagelink", "link", "image", "img", "photoimageurl",
    "contenturl", "uri", "href", "src", "address",
)  # fmt: skip
_TEXT_NAMES = (
    "caption", "text", "texts", "alttext", "alt", "txt", "title", "description", "prompt",
    "altdescription", "captions", "topcaption",
)  # fmt: skip
_HASHES = {"sha256": re.compile(r"[0-9a-fA-F]{64}"), "md5": re.compile(r"[0-9a-fA-F]{32}")}
_SHARE = 0.5  # of the values at the beginning that must be addresses


class ListError(UsageError):
    """A list of addresses that cannot be read as it is, and what to do."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a list by what they hold; None for what it has not."""

    url: str
    text: str | None = None
    sha256: str | None = None
    md5: str | None = None

    @property
    def said(self) -> str:
        """Name them for people."""
        parts = [f"addresses in {self.url!r}"]
        parts.append(f"texts in {self.text!r}" if self.text else "no column of texts")
        parts += [f"hashes in {name!r}" for name in (self.sha256, self.md5) if name]
        return ", ".join(parts)


def choose_columns(
    names: Sequence[str],
    sample: Sequence[Mapping[str, Any]],
    where: str,
    url: str | None = None,
    text: str | None = None,
) -> Columns:
    """Choose the columns of a list by their names and first rows; what is named is taken as it is.

    Raises ListError, with the columns that there are.
    """
    there = f"the columns are {', '.join(map(repr, names)) or 'none'}"
    for option, name in (("--url-column", url), ("--text-column", text)):
        if name is not None and name not in names:
            raise ListError(f"{where}: missing_column: {option} {name!r} is not there; {there}")
    if not sample:
        raise ListError(f"{where}: empty_table: it has no rows; {there}")
    chosen = url if url is not None else _url_column(names, sample, f"{where}: ", there)
    others = [name for name in names if name != chosen]
    return Columns(
        chosen,
        text if text is not None else _text_column(others, sample),
        *(_hash_column(others, sample, kind) for kind in _HASHES),
    )


def _url_column(
    names: Sequence[str], sample: Sequence[Mapping[str, Any]], where: str, there: str
) -> str:
    full = [name for name in names if _share(sample, name, is_address) >= _SHARE]
    known = _by_trust(names, _URL_NAMES)
    # a column of that very name is meant, whatever stands in its first rows
    if named := [name for name in known if name in full] or known[:1]:
        return named[0]
    if len(full) == 1:
        return full[0]
    if full:
        raise ListError(
            f"{where}several columns hold addresses: {', '.join(map(repr, full))}; name one by "
            "--url-column"
        )
    raise ListError(
        f"{where}missing_column: no column of addresses (http:// or https://) is found; {there}. "
        "Name one by --url-column"
    )


def _text_column(names: Sequence[str], sample: Sequence[Mapping[str, Any]]) -> str | None:
    """Choose the texts by name; where no column has a name, the one of the longest words."""
    if known := _by_trust(names, _TEXT_NAMES):
        return known[0]
    unnamed = [name for name in names if is_unnamed(name)]
    lengths = {name: _share(sample, name, _is_wordy) for name in unnamed}
    best = max(lengths, key=lambda name: lengths[name], default=None)
    return best if best is not None and lengths[best] > 0 else None


def _hash_column(
    names: Sequence[str], sample: Sequence[Mapping[str, Any]], kind: str
) -> str | None:
    form = _HASHES[kind]
    known = [name for name in names if _plain(name) in (kind, f"image{kind}")]
    fit = [name for name in known if _share(sample, name, lambda v: _is_hash(form, v)) >= _SHARE]
    return fit[0] if fit else None


def is_address(value: object) -> bool:
    """Whether a value is an address that can be asked for."""
    if not isinstance(value, str):
        return False
    try:
        mend(value)
    except BadAddress:
        return False
    return True


def unnamed(number: int) -> str:
    """Name a column of a list without a header, from 1."""
    return f"column {number}"


def is_unnamed(name: str) -> bool:
    """Whether a column has no name of its own."""
    return re.fullmatch(r"column \d+", name) is not None


def _is_wordy(value: object) -> bool:
    return isinstance(value, str) and any(map(str.isalpha, value)) and not is_address(value)


def _is_hash(form: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and form.fullmatch(value.strip()) is not None


def _share(sample: Sequence[Mapping[str, Any]], name: str, holds: Callable[[Any], bool]) -> float:
    values = [row.get(name) for row in sample]
    there = [value for value in values if value not in (None, "")]
    return sum(map(holds, there)) / len(there) if there else 0.0


def _by_trust(names: Iterable[str], known: Sequence[str]) -> list[str]:
    plain = {name: _plain(name) for name in names}
    return sorted((n for n in plain if plain[n] in known), key=lambda n: known.index(plain[n]))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
