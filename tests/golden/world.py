"""The input of the golden runs: a toy world, a shard cut off in its third sample, odd samples."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.toy.world import ToyWorldConfig, write_toy_world

WORLD = ToyWorldConfig(samples=16, samples_per_shard=8, noise=0.4, seed=16, kinds=4)
NO_NUMBER = b'{"url": "http://example.org/a", "similarity": NaN}'


def write_input(folder: Path) -> None:
    """Write three shards of 8, 6 and 3 samples."""
    write_toy_world(folder, WORLD)
    second = folder / "00001.tar"
    with tarfile.open(second) as tar:
        files = {name: file.read() for name in tar.getnames() if (file := tar.extractfile(name))}
    pictures, texts = (
        [data for name, data in files.items() if name.endswith(ending)]
        for ending in (".png", ".txt")
    )
    (folder / "cut.tar").write_bytes(second.read_bytes()[:9000])
    second.unlink()
    _write_tar(
        folder / "odd.tar",
        [
            ("entity.png", pictures[0]),
            ("entity.txt", texts[0] + b" &amp;amp; more"),
            ("no-number.png", pictures[1]),
            ("no-number.txt", texts[1]),
            ("no-number.json", NO_NUMBER),
            ("unseen.png", pictures[2]),
            ("unseen.txt", "\u200b\u2060".encode()),
            ("no-text.png", pictures[3]),
            ("page.png", b"<html>404</html>"),
            ("page.txt", texts[4]),
            ("bell.png", pictures[5]),
            ("bell.txt", b"\xef\xbb\xbf" + texts[5] + b"\x07"),
            ("bell.json", b'{"url": "http://example.org/b"}'),
        ],
    )


def _write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
