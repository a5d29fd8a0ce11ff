"""A server as a captioner: what it does not answer is refused, and the others go on."""

import logging
from typing import Any

import pytest
from PIL import Image

from models.captioners.captioner import Caption, Refusal
from models.captioners.chat import EndpointError, EndpointUsageError
from models.captioners.endpoint import EndpointCaptioner, check, digest
from tests.support.chat_server import ChatServer, Fault, Settings, describe
from tests.support.tiny_guests import pictures

KEYS = [f"shard/{number}" for number in range(6)]
WIDE = 120  # of one of the pictures alone
BROKEN = Fault(500, b"Internal Server Error")


def write(captioner: EndpointCaptioner, count: int = 1) -> list[Any]:
    return captioner.caption([captioner.prepare(each) for each in pictures()], KEYS, count)


def test_each_picture_has_its_own_captions(server: ChatServer, settings: Settings) -> None:
    captioner = EndpointCaptioner(settings())
    expected = [[Caption(describe(each), truncated=False)] * 2 for each in pictures()]
    assert write(captioner, count=2) == expected
    assert len(server.asked) == 1 + 2 * 6  # one at the start, one a caption
    assert captioner.caption([], [], 1) == []


def test_pictures_are_scaled_down_before_they_are_sent(settings: Settings) -> None:
    captioner = EndpointCaptioner(settings(max_pixels=1024))
    wide = captioner.prepare(Image.new("RGB", (400, 100)))
    expected = Caption("64 by 16, 0 0 0", truncated=False)
    assert captioner.caption([wide], KEYS[:1], 1) == [[expected]]


def test_a_picture_that_breaks_the_server_is_refused_alone(
    server: ChatServer, settings: Settings
) -> None:
    captioner = EndpointCaptioner(settings(tries=2))
    server.struck = lambda width: BROKEN if width == WIDE else None
    answers = write(captioner)
    refused = Refusal("HTTP 500: Internal Server Error, 2 times")
    assert answers == [
        refused if each.width == WIDE else [Caption(describe(each), truncated=False)]
        for each in pictures()
    ]


def test_a_picture_that_is_not_taken_is_refused_alone(
    server: ChatServer, settings: Settings
) -> None:
    captioner = EndpointCaptioner(settings())
    server.struck = lambda width: Fault(400, b"too many tokens") if width == WIDE else None
    answers = write(captioner, count=2)
    assert [each for each in answers if isinstance(each, Refusal)] == [
        Refusal("HTTP 400: too many tokens")
    ]


@pytest.mark.parametrize("fault", [BROKEN, Fault(429), Fault(cut="before")])
def test_a_server_that_answers_nothing_any_more_ends_the_run(
    fault: Fault, server: ChatServer, settings: Settings
) -> None:
    captioner = EndpointCaptioner(settings(tries=1))
    server.struck = lambda _: fault
    with pytest.raises(EndpointError, match=r"does not answer: .* run the same command") as error:
        write(captioner)
    assert (type(error.value), error.value.exit_code) == (EndpointError, 1)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(404, b"no such model"), "HTTP 404: no such model. Check base_url, model"),
        (Fault(400, b"no chat template"), "does not take a picture for seer: HTTP 400"),
    ],
)
def test_a_wrong_recipe_is_told_at_the_start(
    fault: Fault, said: str, server: ChatServer, settings: Settings
) -> None:
    server.faults = [fault]
    with pytest.raises(EndpointUsageError, match=said) as error:
        check(settings())
    assert error.value.exit_code == 2


def test_it_is_said_that_texts_are_not_reproducible(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        told = check(settings())
    assert "captions of seer are not reproducible" in caplog.text
    assert (told.parameters, told.reproducible) == (0, False)
    assert told.digest == EndpointCaptioner(settings()).digest


def test_the_digest_is_of_what_is_asked_and_not_of_where(settings: Settings) -> None:
    there = digest(settings())
    assert digest(settings(base_url="https://elsewhere/v1", tries=1, concurrency=2)) == there
    for change in ({"model": "other"}, {"prompt": "Why?"}, {"temperature": 0.1}):
        assert digest(settings(**change)) != there
