"""A public server that leads elsewhere: whoever is not public is not asked, through img2dataset."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from shards.download.record import Download, newest_commits
from shards.store import Store
from tests.support import odd_server, served
from tests.support.driving import Command

PUBLIC, PRIVATE, PORT = "93.184.216.34", "10.0.0.5", 8765
START = f"http://{PUBLIC}:{PORT}"


def leading_to(url: str) -> str:
    return f"{START}/odd/redirect-to/{quote(url, safe='')}"


INSIDE = f"http://{PRIVATE}:{PORT}/pictures/inside"
ALLOWED = [f"{START}/pictures/outside", leading_to(f"{START}/pictures/outside-too")]
REFUSED = [
    INSIDE,
    leading_to(f"{INSIDE}-by-one"),
    leading_to(leading_to(f"{INSIDE}-by-two")),
    *(
        leading_to(f"http://{host}:{PORT}/pictures/inside-{number}")
        for number, host in enumerate(["127.0.0.1", "localhost", "167772165", "0x0a.5"])
    ),
]
UNREACHABLE = [
    leading_to(f"http://{host}:{PORT}/pictures/inside")
    for host in ("[::1]", f"[::ffff:{PRIVATE}]", "169.254.169.254")
]


@pytest.fixture
def beside(capfilt_ray: Command, tmp_path: Path) -> Command:
    """The command in a network where one server has a public and a private address."""
    every = ["host=0.0.0.0", f"port={PORT}", f"log={tmp_path / 'requests'}"]
    serve = [sys.executable, odd_server.__file__, *every]
    chosen = json.dumps({"addresses": [PUBLIC, PRIVATE], "server": serve})
    return replace(
        capfilt_ray, prefix=[*capfilt_ray.prefix, sys.executable, served.__file__, chosen]
    )


def fetched(beside: Command, urls: list[str], *flags: str) -> tuple[dict[str, str], set[str]]:
    """Fetch addresses: what each ended as, and which pictures the server was asked for."""
    (beside.home / "list.jsonl").write_text("\n".join(json.dumps({"url": url}) for url in urls))
    done = beside.run("download", "list.jsonl", "web", "--direct", "--workers=1", *flags)
    assert done.returncode == 0, done.stderr
    download = Download.open(Store(str(beside.home / "web")))
    ended = [row for commit in newest_commits(download).values() for row in download.rows(commit)]
    paths = (beside.home / "requests").read_text().splitlines()
    return (
        {row["url"]: row["reason"] or "ok" for row in ended},
        {path.rpartition("/")[2] for path in paths if path.startswith("/pictures/")},
    )


def test_no_redirect_leads_inside(beside: Command, img2dataset: str) -> None:
    urls = [*ALLOWED, *REFUSED, *UNREACHABLE]
    ended, asked_for = fetched(beside, urls, f"--img2dataset={img2dataset}")
    assert ended == dict.fromkeys(ALLOWED, "ok") | dict.fromkeys(
        [*REFUSED, *UNREACHABLE], "blocked_address"
    )
    assert asked_for == {"outside", "outside-too"}


def test_the_same_addresses_answer_whoever_may_ask(beside: Command, img2dataset: str) -> None:
    flags = (f"--img2dataset={img2dataset}", "--allow-private-addresses")
    ended, asked_for = fetched(beside, [*ALLOWED, *REFUSED], *flags)
    assert set(ended.values()) == {"ok"}
    assert len(asked_for) == len(ALLOWED) + len(REFUSED)
