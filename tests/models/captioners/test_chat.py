"""One question to a server over HTTP: asked again where that helps, and never without an end."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from typing import Any

import pytest
from PIL import Image

from models.captioners.captioner import Caption
from models.captioners.chat import ChatClient, EndpointUsageError, Unanswered
from models.captioners.config import EndpointCaptionerConfig
from models.guests.picture import encode
from tests.support.chat_server import ChatServer, Fault, Settings, describe, saying

PICTURE = Image.new("RGB", (7, 5), (200, 30, 10))
SEEN = Caption(describe(PICTURE), truncated=False)


def ask(config: EndpointCaptionerConfig, times: int = 1) -> list[Caption | Unanswered]:
    async def run() -> list[Caption | Unanswered]:
        async with ChatClient(config).opened() as client:
            data = encode(PICTURE, "png")
            return list(await asyncio.gather(*(client.ask(data) for _ in range(times))))

    return asyncio.run(run())


def test_the_server_sees_the_picture_and_the_question(
    server: ChatServer, settings: Settings
) -> None:
    assert ask(settings(prompt="What is it?", max_tokens=9, top_k=4)) == [SEEN]
    body = server.asked[0]
    assert {name: body[name] for name in body if name != "messages"} == {
        "model": "seer",
        "temperature": 1.0,
        "top_p": 0.9,
        "max_tokens": 9,
        "top_k": 4,
    }
    assert body["messages"][0]["content"][1] == {"type": "text", "text": "What is it?"}


@pytest.mark.parametrize(
    "fault",
    [
        *(Fault(status) for status in (408, 409, 415, 425, 429, 500, 502, 503)),
        Fault(body=b"<html>a proxy's page</html>"),
        Fault(body=b'{"choices": []}'),
        Fault(body=b'{"choices": [{"message": {"content": ["parts"]}}]}'),
        Fault(body=b" " * (5 << 20)),
    ],
    ids=lambda fault: f"{fault.status} {fault.body[:30]!r}",
)
def test_what_may_pass_is_asked_again(fault: Fault, server: ChatServer, settings: Settings) -> None:
    server.faults = [fault]
    assert ask(settings()) == [SEEN]
    assert len(server.asked) == 2


def test_each_pause_is_longer_than_the_last(server: ChatServer, settings: Settings) -> None:
    server.faults = [Fault(503)] * 5
    assert ask(settings(tries=6)) == [SEEN]
    pauses = [after - before for before, after in pairwise(server.times)]
    for number, pause in enumerate(pauses):
        assert 0.01 * 2**number <= pause <= 0.02 * 2**number + 0.2


@pytest.mark.parametrize("cut", ["before", "middle"])
def test_a_cut_connection_is_replaced_at_once(
    cut: str, server: ChatServer, settings: Settings
) -> None:
    server.faults = [Fault(cut=cut)]
    assert ask(settings(tries=1)) == [SEEN]
    server.faults = [Fault(cut=cut)] * 2
    (answer,) = ask(settings(tries=1))
    assert isinstance(answer, Unanswered)
    assert not answer.final


def test_a_picture_is_given_up_after_so_many_tries(server: ChatServer, settings: Settings) -> None:
    server.faults = [Fault(500, b"Internal Server Error")] * 2
    expected = Unanswered("HTTP 500: Internal Server Error, 2 times", final=False)
    assert ask(settings(tries=2)) == [expected]
    assert len(server.asked) == 2


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_the_server_says_of_this_picture_is_final(
    status: int, server: ChatServer, settings: Settings
) -> None:
    server.faults = [Fault(status, b"too long a prompt")]
    assert ask(settings()) == [Unanswered(f"HTTP {status}: too long a prompt", final=True)]
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405])
def test_what_no_picture_can_change_is_the_recipes_fault(
    status: int, server: ChatServer, settings: Settings
) -> None:
    server.faults = [Fault(status)]
    with pytest.raises(
        EndpointUsageError, match=f"answers HTTP {status}: .* Check base_url, model"
    ):
        ask(settings())


@pytest.mark.parametrize("form", ["seconds", pytest.param("date", marks=pytest.mark.nightly)])
def test_the_server_says_how_long_to_wait(
    form: str, server: ChatServer, settings: Settings
) -> None:
    until = datetime.now(UTC) + timedelta(seconds=2)  # dates have no parts of seconds
    wish = "0.6" if form == "seconds" else format_datetime(until, usegmt=True)
    server.faults = [Fault(429, headers={"Retry-After": wish})]
    assert ask(settings()) == [SEEN]
    assert server.times[1] - server.times[0] >= 0.5


@pytest.mark.parametrize("wish", ["soon", "-5", "nan"])
def test_a_wish_that_makes_no_sense_is_none(
    wish: str, server: ChatServer, settings: Settings
) -> None:
    server.faults = [Fault(503, headers={"Retry-After": wish})]
    assert ask(settings()) == [SEEN]
    assert server.times[1] - server.times[0] < 2


@pytest.mark.parametrize("slow", ["head", "body"])
def test_a_request_ends_at_its_deadline_however_slow(
    slow: str, server: ChatServer, settings: Settings
) -> None:
    if slow == "head":
        server.work_s = 2
    else:
        server.struck = lambda _: Fault(body=b"x" * 50, drip_s=0.1)
    begin = time.monotonic()
    (answer,) = ask(settings(timeout_s=0.4, tries=2))
    assert answer == Unanswered("no whole answer within 0.4 s, 2 times", final=False)
    assert 0.8 <= time.monotonic() - begin < 3


def test_no_more_requests_are_under_way_than_allowed(
    server: ChatServer, settings: Settings
) -> None:
    server.work_s = 0.05
    assert ask(settings(concurrency=3), times=12) == [SEEN] * 12
    assert server.most_under_way == 3


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (saying(None, reasoning_content="first I look"), Caption("", truncated=False)),
        (saying("  a dog\n", "length"), Caption("a dog", truncated=True)),
        (saying("a dog", None), Caption("a dog", truncated=None)),
    ],
)
def test_what_is_a_caption_and_what_is_not(
    reply: Fault, expected: Caption, server: ChatServer, settings: Settings
) -> None:
    server.faults = [reply]
    assert ask(settings()) == [expected]


def test_the_key_stands_in_a_header_alone(
    server: ChatServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEER_KEY", "sk-hidden\n")
    config = settings(key_env="SEER_KEY", tries=1)
    assert ask(config) == [SEEN]
    assert server.headers[0]["Authorization"] == "Bearer sk-hidden"
    assert "sk-hidden" not in f"{config!r} {config.model_dump_json()} {ChatClient(config)!r}"
    server.faults = [Fault(401, b"no such key: sk-hidden")]
    with pytest.raises(EndpointUsageError) as error:
        ask(config)
    assert "sk-hidden" not in str(error.value)
    for fault in (Fault(500, b"sk-hidden failed"), Fault(body=b"<p>sk-hidden</p>")):
        server.faults = [fault]
        (answer,) = ask(config)
        assert isinstance(answer, Unanswered)
        assert "sk-hidden" not in answer.detail


@pytest.mark.parametrize(
    ("value", "said"), [(None, "is not set here"), (" ", "is not set"), ("a\nb", "no header may")]
)
def test_a_key_that_is_none(
    value: str | None, said: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEER_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("SEER_KEY", value)
    with pytest.raises(EndpointUsageError, match=f"SEER_KEY.*{said}"):
        ask(settings(key_env="SEER_KEY"))


def test_nobody_listens(settings: Settings) -> None:
    (answer,) = ask(settings(base_url="http://127.0.0.1:9/v1", tries=1))
    assert isinstance(answer, Unanswered)
    assert "http://127.0.0.1:9/v1/chat/completions: ConnectError" in answer.detail


def test_a_proxy_is_named_where_one_stands_before_the_server(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    answers: list[Any] = ask(settings(tries=1))
    assert "by the proxy of http_proxy" in answers[0].detail
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert ask(settings(tries=1)) == [SEEN]
