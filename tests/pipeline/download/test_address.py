"""Addresses are mended as a browser would, or refused."""

import pytest

from pipeline.download.address import BadAddress, mend


@pytest.mark.parametrize(
    ("url", "mended"),
    [
        ("http://a.org/x.jpg", "http://a.org/x.jpg"),
        ("  HTTP://A.org/x.jpg\n", "http://a.org/x.jpg"),
        ("https://a.org", "https://a.org/"),
        ("http://a.org/lampe à huile.jpg", "http://a.org/lampe%20%C3%A0%20huile.jpg"),
        ("http://a.org/a%20b.jpg?q=1&amp;w=ä#top", "http://a.org/a%20b.jpg?q=1&amp;w=%C3%A4"),
        ("http://bücher.example/x", "http://xn--bcher-kva.example/x"),
        ("http://me:secret@a.org:81/x", "http://a.org:81/x"),
        ("http://[2001:db8::1]:8080/x", "http://[2001:db8::1]:8080/x"),
        ("http://a.org/a,b;c=(d)'e'", "http://a.org/a,b;c=(d)'e'"),
    ],
)
def test_what_a_browser_asks_for_is_asked_for(url: str, mended: str) -> None:
    assert mend(url) == mended
    assert mend(mended) == mended


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://a.org/x", "file:///etc/hostname", "data:image/png;base64,AA==", "a.org/x.jpg"),
        *("//a.org/x", "javascript:alert(1)", "http://", "http:///x", "http://a.org:99999/x"),
        *("http://a.org/x\0.jpg", "http://a b/x", "not an address", "http://[::1/x", ""),
        *("http://a.org/\ud800", "http://a.org/" + "x" * 9_000, f"http://{'ü' * 70}.org/"),
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(BadAddress):
        mend(url)
