"""Captions of a real server, `transformers serve`, behind a proxy that spoils answers."""

import importlib.util
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from models.captioners.captioner import Caption, Refusal
from models.captioners.config import EndpointCaptionerConfig, TransformersCaptionerConfig
from models.captioners.endpoint import EndpointCaptioner
from models.captioners.transformers import TransformersCaptioner
from tests.support.fault_proxy import Fault, by_rates, fault_proxy
from tests.support.tiny_guests import QUESTION, pictures

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in ("openai", "accelerate")),
        reason="transformers[serving] is not installed",
    ),
]
KEYS = [f"shard/{number}" for number in range(6)]
TOKENS = 12
STARTS_WITHIN_S = 120


@pytest.fixture(scope="module")
def served(
    guest_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a server of the tiny LLaVA, in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path_factory.mktemp("served") / "log").open("w")
    program = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", program, "serve", str(guest_folder("llava"))]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(url, process, Path(log.name))
            yield url
        finally:
            process.terminate()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx2.get(f"{url}/health", trust_env=False).status_code == httpx2.codes.OK:
                return
        except httpx2.TransportError:
            time.sleep(0.3)
    pytest.fail(f"the server did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def expected(guest_folder: Callable[[str], Path]) -> list[list[Caption]]:
    """What the same folder says without a server."""
    config = TransformersCaptionerConfig(
        kind="transformers",
        model=str(guest_folder("llava")),
        prompt=QUESTION,
        method="greedy",
        max_tokens=TOKENS,
    )
    local = TransformersCaptioner(config, dtype="fp32")
    written = local.caption([local.prepare(picture) for picture in pictures()], KEYS, 1)
    return [[Caption(each.text, truncated=each.truncated) for each in row] for row in written]


def asked(url: str, folder: Path, **settings: object) -> EndpointCaptioner:
    section = {
        "base_url": f"{url}/v1",
        "model": str(folder),
        "prompt": QUESTION,
        "max_tokens": TOKENS,
        "image_format": "png",
        **settings,
    }
    return EndpointCaptioner(EndpointCaptionerConfig(kind="endpoint", **section))


def test_captions_are_those_of_the_folder(
    served: str, guest_folder: Callable[[str], Path], expected: list[list[Caption]]
) -> None:
    captioner = asked(served, guest_folder("llava"), concurrency=4)
    assert len({row[0].text for row in expected}) >= 5
    batch = [captioner.prepare(picture) for picture in pictures()]
    assert captioner.caption(batch, KEYS, 1) == expected


def test_what_is_lost_on_the_way_is_asked_again(
    served: str, guest_folder: Callable[[str], Path], expected: list[list[Caption]]
) -> None:
    faults = (Fault.UNAVAILABLE, Fault.RESET, Fault.CUT, Fault.DONE_RESET, Fault.SLOW)
    with fault_proxy(served, by_rates(dict.fromkeys(faults, 0.1), seed=2), slow_s=1) as proxy:
        captioner = asked(proxy.endpoint, guest_folder("llava"), tries=12, timeout_s=20)
        batch = [captioner.prepare(picture) for picture in pictures()]
        for _ in range(5):
            assert captioner.caption(batch, KEYS, 1) == expected
    assert len(proxy.injected) >= 4


def test_a_picture_that_is_none_is_refused_alone(
    served: str, guest_folder: Callable[[str], Path], expected: list[list[Caption]]
) -> None:
    captioner = asked(served, guest_folder("llava"), tries=2)
    batch = [captioner.prepare(picture) for picture in pictures()]
    batch[2] = replace(batch[2], content=b"no picture at all")
    written = captioner.caption(batch, KEYS, 1)
    assert written[2] == Refusal("HTTP 500: Internal Server Error, 2 times")
    assert [*written[:2], *written[3:]] == [*expected[:2], *expected[3:]]
