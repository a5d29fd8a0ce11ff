"""Damaged inputs by number, and what must hold of each: the same seed makes the same cases."""

import functools
import gzip
import hashlib
import io
import json
import random
import tarfile
import tempfile
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.clean.screen import ScreenConfig, screen
from shards.errors import UsageError
from shards.inputs.reader import RawSample, ShardReader
from shards.training.annotation_file import read_annotations
from tests.support.fuzz.mutate import BLOCK_BYTES, mutated

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
TEXT = "a “red” circle beside Dog&amp;#39;s café \u200b\U0001f469\u200d\U0001f680".encode()
SIDECAR = (
    b'{"url": "http://a.example/b.jpg?x=1", "sha256": "0f", "width": 64, "exif": "{}", "n": 1.5}'
)
JOINERS = dict.fromkeys((0x200C, 0x200D))  # of words and of emoji
ANNOTATIONS: Mapping[str, list[dict[str, Any]]] = {
    "captions": [{"image": f"{n}.jpg", "caption": ["one", "two"]} for n in range(4)],
    "questions": [
        {"image": f"{n}.jpg", "question": "how many?", "answer": ["2", "3"], "dataset": "vqa"}
        for n in range(4)
    ],
    "statements": [
        {"images": ["a.jpg", "b.jpg"], "sentence": "both", "label": "True"} for _ in range(4)
    ],
}


class Broken(AssertionError):  # noqa: N818 - reads as what happened
    """What must hold of every input does not hold of this one."""


@dataclass(frozen=True, slots=True)
class Case:
    """One damaged input: its kind, and its bytes."""

    kind: str
    data: bytes

    def check(self) -> str:
        """Read it as a run would; return how it ended, in a word. Raises Broken."""
        return CHECKS[self.kind](self.data)


def case(seed: int, number: int) -> Case:
    """Make the case of a number."""
    chance = random.Random(f"{seed}-{number}")
    kind = KINDS[number % len(KINDS)]
    return Case(kind, MAKERS[kind](chance))


def _tar(chance: random.Random) -> bytes:
    members = [
        (f"{number:03d}.{extension}", data)
        for number in range(4)
        for extension, data in (
            ("json", SIDECAR),
            ("mask.png", pictures()[1]),
            (chance.choice(("jpg", "png", "jfif", "JPEG")), pictures()[number % 2]),
            ("txt", TEXT),
        )
    ]
    if chance.random() < 0.4:
        chance.shuffle(members)
    data = _packed(members, chance)
    return data if chance.random() < 0.8 else mutated(gzip.compress(data, 1), chance)


def _packed(members: list[tuple[str, bytes]], chance: random.Random) -> bytes:
    """Pack them, and damage the whole, or headers whose checksums fit again."""
    file = io.BytesIO()
    long = "x" * chance.choice((1, 1, 40, 85))
    with tarfile.open(fileobj=file, mode="w", format=chance.choice(FORMATS)) as tar:
        for name, data in members:
            info = tarfile.TarInfo(f"./{long}/{name}")
            info.size, info.type = (
                len(data),
                chance.choice(b"0" * 40 + b"1237LKSVMDNxg").to_bytes(1, "big"),
            )
            tar.addfile(info, io.BytesIO(data))
    data = file.getvalue()
    if chance.random() < 0.5:
        return mutated(data, chance)
    blocks = [data[at : at + BLOCK_BYTES] for at in range(0, len(data), BLOCK_BYTES)]
    headers = [number for number, block in enumerate(blocks) if block[257:262] == b"ustar"]
    for number in chance.sample(headers, min(3, len(headers))):
        blocks[number] = _sealed(mutated(blocks[number], chance))
    return b"".join(blocks)


def _sealed(block: bytes) -> bytes:
    blanked = (block + bytes(BLOCK_BYTES))[:BLOCK_BYTES]
    blanked = blanked[:148] + b" " * 8 + blanked[156:]
    return blanked[:148] + b"%06o\0 " % sum(blanked) + blanked[156:]


@functools.cache
def pictures() -> tuple[bytes, ...]:
    """Small pictures of every format and kind that is read."""
    grid = np.random.default_rng(0).integers(0, 256, (48, 40, 4), dtype=np.uint8)
    colour, clear = Image.fromarray(grid[..., :3]), Image.fromarray(grid)
    grey = Image.fromarray(grid[..., 0].astype(np.uint16) * 16)
    frames = [Image.fromarray(np.roll(grid[..., :3], step, 0)) for step in range(3)]
    animated: dict[str, Any] = {"save_all": True, "append_images": frames}
    saved: list[tuple[Image.Image, str, dict[str, Any]]] = [
        *((colour, "JPEG", {"quality": 60}), (clear, "PNG", {})),
        *((colour, "JPEG", {"progressive": True, "comment": b"x" * 99}), (grey, "PNG", {})),
        *((colour.convert("CMYK"), "JPEG", {}), (colour.convert("P"), "PNG", {"transparency": 0})),
        *((colour, "WEBP", {}), (clear, "WEBP", {"lossless": True}), (colour, "GIF", {})),
        *((colour, "GIF", animated), (colour, "PNG", animated), (colour, "WEBP", animated)),
        *((colour, "BMP", {}), (colour, "TIFF", {}), (colour, "PNG", {"icc_profile": b"x" * 500})),
    ]
    return tuple(_saved(*one) for one in saved)


def _saved(image: Image.Image, form: str, options: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _annotations(chance: random.Random) -> bytes:
    rows = ANNOTATIONS[chance.choice(sorted(ANNOTATIONS))]
    lines = "\n".join(map(json.dumps, rows)) if chance.random() < 0.3 else json.dumps(rows)
    return mutated(lines.encode(), chance)


def _check_tar(data: bytes) -> str:
    reader = ShardReader(io.BytesIO(data))
    rows = list(reader)
    _hold(reader.bytes_read == len(data), f"{reader.bytes_read} bytes read of {len(data)}")
    _hold(reader.sha256 == hashlib.sha256(data).hexdigest(), "another hash")
    _hold([row.index for row in rows] == list(range(len(rows))), "indices with gaps")
    for row in rows:
        _check_row(row)
    return str(reader.state.state)


def _check_row(raw: RawSample) -> str:
    """A sample is accepted with a picture, or rejected for a reason; all of it can be stored."""
    done = screen(raw, ScreenConfig())
    facts = done.facts
    _hold((facts["status"] == "ok") == (facts.get("reason") is None), "neither ok nor rejected")
    _hold((done.image is not None) == (facts["status"] == "ok"), "a picture too many or too few")
    text, meta = facts.get("web_text"), facts.get("meta")
    if raw.reason is None:
        _hold((text is None) == (facts.get("text_reason") is not None), "a text without a reason")
    shown = "".join(character for character in text or "x" if not _may_show(character))
    _hold(
        shown.translate(JOINERS).isprintable() and shown.strip() != "",
        f"no text to be seen: {text!r}",
    )
    for stored in (text, meta, facts.get("url"), facts.get("detail"), facts.get("key")):
        (stored or "").encode()  # a lone surrogate cannot be stored
    if meta is not None:
        json.loads(meta, parse_constant=_refuse)
    return str(facts.get("reason") or "ok")


def _may_show(character: str) -> bool:
    """Whether a later Unicode than Python's, or somebody's font, may show something there."""
    return unicodedata.category(character) in ("Cn", "Co") and ord(character) & 0xFFFE != 0xFFFE


def _refuse(name: str) -> None:
    raise Broken(f"{name} in a sidecar that is to be strict JSON")


def _sample(image: bytes, text: bytes = TEXT, meta: bytes = SIDECAR) -> str:
    ended = _check_row(RawSample(0, "a", image, "jpg", text, meta, None, None, 0))
    _hold(image is not pictures()[0] or ended == "ok", f"a good picture became {ended}")
    return ended


def _check_annotations(data: bytes) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.json"
        file.write_bytes(data)
        try:
            found = read_annotations(str(file))
        except UsageError:
            return "refused"
    try:
        listed = json.loads(data)
    except ValueError:
        return "read"  # in lines, say
    if isinstance(listed, list):
        counted = len(found.rows) + sum(found.left_out.values())
        _hold(counted == len(listed), f"{len(listed)} rows, {counted} accounted for")
    return "read"


def _hold(true: bool, else_say: str) -> None:
    if not true:
        raise Broken(else_say)


KINDS = ("tar", "picture", "tar", "picture", "sidecar", "text", "annotations")
MAKERS: Mapping[str, Callable[[random.Random], bytes]] = {
    "tar": _tar,
    "picture": lambda chance: mutated(chance.choice(pictures()), chance),
    "sidecar": lambda chance: mutated(SIDECAR, chance),
    "text": lambda chance: mutated(TEXT, chance),
    "annotations": _annotations,
}
CHECKS: Mapping[str, Callable[[bytes], str]] = {
    "tar": _check_tar,
    "picture": lambda data: _sample(data),
    "sidecar": lambda data: _sample(pictures()[0], meta=data),
    "text": lambda data: _sample(pictures()[0], text=data),
    "annotations": _check_annotations,
}


def warm() -> None:
    """Read each picture once, so that what its codec takes is there."""
    limits = ScreenConfig()
    for picture in pictures():
        screen(RawSample(0, "a", picture, "jpg", TEXT, SIDECAR, None, None, 0), limits)
