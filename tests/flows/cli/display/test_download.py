"""A download on the terminal."""

import pytest

from flows.cli.display.download import print_download
from flows.stages.download import DownloadResult

STATISTICS = {
    "rows": 1200,
    "ok": 900,
    "failed": 100,
    "failed_by_reason": {"timeout": 30, "http_error": 70},
    "pending": 200,
    "worth_a_retry": 100,
    "bytes": 5_000_000,
    "parts": {"total": 2, "done": 1, "pending": 1},
    "tars": ["00000.tar"],
}


def test_every_row_is_accounted_for(capsys: pytest.CaptureFixture[str]) -> None:
    print_download(DownloadResult("/out", STATISTICS, ()))
    out = capsys.readouterr().out
    for words in ("1,200", "900", "http_error", "timeout", "pending", "5.0 MB", "--retry"):
        assert words in out
    assert out.index("http_error") < out.index("timeout")  # the most first
    assert "to clean it" not in out  # while parts are left


@pytest.mark.parametrize("blocked", [0, 3])
def test_the_way_to_addresses_of_ones_own_is_named(
    capsys: pytest.CaptureFixture[str], blocked: int
) -> None:
    reasons = {"blocked_address": blocked} if blocked else {}
    print_download(DownloadResult("/out", STATISTICS | {"failed_by_reason": reasons}, ()))
    assert ("--allow-private-addresses" in capsys.readouterr().out) is bool(blocked)
