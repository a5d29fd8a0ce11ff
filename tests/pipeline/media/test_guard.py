"""A picture that ends its decoder costs itself; all others come out as without a guard."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from pipeline.media.decode import Decoded, DecodeLimits, DecodeRefusal, decode
from pipeline.media.guard import Guard

LIMITS = DecodeLimits(min_side=32, max_pixels=1_000_000, max_aspect=10)
POISON = Path(__file__).parents[2] / "support" / "poison"


@pytest.fixture
def picture(noise: Any, encode: Any) -> Callable[..., bytes]:
    def make(comment: bytes = b"", seed: int = 0) -> bytes:
        return encode(noise(seed=seed), "JPEG", comment=comment)

    return make


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes that start now have the faulty codec."""
    monkeypatch.setenv("PYTHONPATH", str(POISON))


def child() -> psutil.Process:
    (found,) = psutil.Process().children()
    return found


def test_as_without_a_guard(noise: Any, encode: Any) -> None:
    files = [encode(noise(50 + n, 40, seed=n), kind) for n, kind in enumerate(("JPEG", "PNG"))]
    files += [encode(noise().convert("CMYK"), "JPEG"), encode(noise().convert("P"), "GIF")]
    files += [b"", b"<html>", files[0][:500], encode(noise(2000, 600), "PNG")]
    files += [files[0][:-2], encode(noise(), "GIF")[:-1], encode(noise(), "PNG")[:-12]]
    frames = [Image.new("RGB", (64, 48)), noise()]
    files += [encode(frames[0], "GIF", save_all=True, append_images=frames[1:])]
    files += [encode(Image.fromarray(np.arange(4000, dtype=np.uint16).reshape(50, 80)), "PNG")]
    with Guard() as guard:
        for data in files:
            guarded, plain = guard.decode(data, LIMITS), decode(data, LIMITS)
            if isinstance(plain, DecodeRefusal):
                assert guarded == plain
                continue
            assert isinstance(guarded, Decoded)
            assert (guarded.format, guarded.notes) == (plain.format, plain.notes)
            assert guarded.image.mode == "RGB"
            assert guarded.image.size == plain.image.size
            assert guarded.image.tobytes() == plain.image.tobytes()


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(
    ("fault", "reason", "word"),
    [
        ("segfault", "decoder_crash", "SIGSEGV"),
        ("eat", "decoder_crash", "MiB"),
        ("hang", "decode_timeout", "1 s"),
        ("freeze", "decode_timeout", "1 s"),
    ],
)
def test_a_fault_costs_one_picture(picture: Any, fault: str, reason: str, word: str) -> None:
    with Guard(timeout_s=1 if reason == "decode_timeout" else 20) as guard:
        assert isinstance(guard.decode(picture(seed=1), LIMITS), Decoded)
        refusal = guard.decode(picture(f"poison: {fault}".encode()), LIMITS)
        assert isinstance(refusal, DecodeRefusal)
        assert refusal.reason == reason
        assert word in refusal.detail
        assert isinstance(guard.decode(picture(seed=2), LIMITS), Decoded)
    assert psutil.Process().children() == []


def test_a_killed_child_costs_no_healthy_picture(picture: Any) -> None:
    with Guard() as guard:
        for seed in range(3):
            assert isinstance(guard.decode(picture(seed=seed), LIMITS), Decoded)
            child().kill()


@pytest.mark.usefixtures("poisoned")
def test_a_child_does_not_outlive_its_parent_for_long(picture: Any, tmp_path: Path) -> None:
    """A parent that is killed cannot end a child that hangs: the kernel's timer does."""
    file = tmp_path / "hang.jpg"
    file.write_bytes(picture(b"poison: freeze"))
    parent = os.fork()
    if parent == 0:
        with Guard(timeout_s=2) as guard:
            guard.decode(file.read_bytes(), LIMITS)
        os._exit(0)
    deadline = time.monotonic() + 20
    while not (children := psutil.Process(parent).children()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(1)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    _, alive = psutil.wait_procs(children, timeout=15)
    assert alive == []
