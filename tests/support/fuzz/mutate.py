"""Damage bytes at random, as disks, networks, bad writers and attackers do."""

import random
from collections.abc import Callable

MOST_BYTES = 4 << 20  # of what comes out
BLOCK_BYTES = 512
_ODD = (0, 1, 0x7F, 0x80, 0xFF)
_TOKENS = (
    *(b"\x00" * 16, b"\xff" * 16, b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\xc2\x93"),
    *(b"../", b"/", b"._", b".tar", b".jpg", b".txt", b".mask.png", b"\r\n", b"\t"),
    *(b"NaN", b"-Infinity", b"1e999", b"null", b"[" * 500, b'{"a":' * 200, b"9" * 5000),
    *(b"&amp;" * 50, b"&#x1F469;", b"\xe2\x80\x8d", b"\xe2\x80\x8b", b"\\ud800", b"\\u0000"),
    *(b"77777777777\x00", b"\x80\x00\x00\x00\xff\xff\xff\xff", b"0000000000-1", b"ustar\x0000"),
    *(b"IEND", b"IDAT", b"zTXt", b"iCCP", b"acTL", b"\xff\xd9", b"\xff\xda", b"NETSCAPE2.0"),
)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Damage some bytes in one to four ways."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        data = chance.choice(WAYS)(data, chance)[:MOST_BYTES]
    return data


def _flip(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 3, 30))):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _set(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 4))):
        if changed:
            changed[chance.randrange(len(changed))] = chance.choice(_ODD)
    return bytes(changed)


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _drop(data: bytes, chance: random.Random) -> bytes:
    start, end = _span(data, chance)
    return data[:start] + data[end:]


def _repeat(data: bytes, chance: random.Random) -> bytes:
    start, end = _span(data, chance)
    return data[:end] + data[start:end] * chance.choice((1, 2, 20)) + data[end:]


def _swap(data: bytes, chance: random.Random) -> bytes:
    blocks = [data[at : at + BLOCK_BYTES] for at in range(0, len(data), BLOCK_BYTES)]
    if len(blocks) > 1:
        one, other = chance.sample(range(len(blocks)), 2)
        blocks[one], blocks[other] = blocks[other], blocks[one]
    return b"".join(blocks)


def _insert(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice(_TOKENS) + data[at:]


def _overwrite(data: bytes, chance: random.Random) -> bytes:
    at, token = chance.randrange(len(data) + 1), chance.choice(_TOKENS)
    return data[:at] + token + data[at + len(token) :]


def _noise(data: bytes, chance: random.Random) -> bytes:
    start, end = _span(data, chance)
    return data[:start] + chance.randbytes(end - start) + data[end:]


def _append(data: bytes, chance: random.Random) -> bytes:
    return data + chance.choice((data, chance.randbytes(700), bytes(1024)))


def _span(data: bytes, chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(len(data) + 1)
    return start, min(len(data), start + chance.choice((1, 7, 100, 512, 5000)))


WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_flip, _set, _cut, _drop, _repeat, _swap),
    *(_insert, _overwrite, _noise, _append),
)
