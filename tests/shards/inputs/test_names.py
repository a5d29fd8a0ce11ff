"""Keys and extensions of names."""

from shards.inputs.names import split_name


def test_split_name() -> None:
    assert split_name(b"a.b.JPG") == (b"a.b", "jpg")
    assert split_name(b"d.d/a.Txt") == (b"d.d/a", "txt")
    for name in (b"d.jpg/a", b"noext", b".jpg", b"d/._a.jpg"):
        assert split_name(name) == (name, "")
