"""One question to a server that speaks OpenAI's chat completions, asked until it is answered.

A whole request has a deadline, its last byte included: time-outs of HTTP clients are of each read,
and a body that drips meets them all. The server's key stands in a header alone.
"""

import asyncio
import base64
import os
import random
import ssl
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, ClassVar
from urllib.parse import urlsplit

import httpx2
from pydantic import BaseModel, Field, ValidationError

from models.captioners.captioner import Caption
from models.captioners.config import EndpointCaptionerConfig

_AGAIN = {408, 409, 415, 425, 429}  # 415 comes of servers under load; and all from 500 on
_USAGE = {401, 403, 404, 405}  # the address, the model's name or the key, never the picture
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _LONGEST_WISH_S = 0.5, 30.0, 600.0
_MOST_BYTES = 4 << 20  # of an answer
_SHOWN = 300  # characters of what a server says
_CUT = (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError)


class EndpointError(RuntimeError):
    """A server that does not answer any more, whatever the picture; the message says how."""

    exit_code: ClassVar[int] = 1


class EndpointUsageError(EndpointError):
    """A server that does not take what it is asked: its address, its model's name, its key."""

    exit_code: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A picture without an answer; `final`: the server said so of this very request."""

    detail: str
    final: bool


class _Again(Exception):  # noqa: N818 - never leaves this file
    """A fault that another try may not meet, and how long the server asks to wait."""

    def __init__(self, detail: str, wait_s: float = 0) -> None:
        super().__init__(detail)
        self.detail, self.wait_s = detail, wait_s


class _Message(BaseModel):
    content: str | None = None  # where it is None, what else is there is no caption: reasoning


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Reply(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


class ChatClient:
    """Asks one question about pictures while it is `opened`, in one event loop or the next."""

    def __init__(self, config: EndpointCaptionerConfig) -> None:
        """Read the key; EndpointUsageError if its variable does not hold one."""
        self._config, self._key = config, _read_key(config.key_env)
        self._url = f"{config.base_url}/chat/completions"
        self._slots = asyncio.Semaphore(config.concurrency)
        self._client: httpx2.AsyncClient | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["ChatClient"]:
        """Hold connections, as many as requests may be under way."""
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx2.Limits(max_connections=self._config.concurrency)
        async with httpx2.AsyncClient(
            headers=headers, limits=limits, timeout=None, verify=_trust()
        ) as client:
            self._client, self._slots = client, asyncio.Semaphore(self._config.concurrency)
            yield self

    async def ask(self, picture: bytes) -> Caption | Unanswered:
        """Ask about a picture until there is an answer, at most as often as the recipe says.

        It also ends as soon as the recipe's patience does. EndpointUsageError for an answer that no
        picture could change.
        """
        try:
            async with asyncio.timeout(self._config.patience_s):
                return await self._ask(picture)
        except TimeoutError:
            return Unanswered(f"no answer within {self._config.patience_s:g} s in all", final=False)

    async def _ask(self, picture: bytes) -> Caption | Unanswered:
        body, detail = self._body(picture), ""
        for attempt in range(self._config.tries):
            async with self._slots:
                try:
                    async with asyncio.timeout(self._config.timeout_s):
                        return await self._send(body)
                except TimeoutError:
                    wait_s = 0.0
                    detail = f"no whole answer within {self._config.timeout_s:g} s"
                except _Again as fault:
                    detail, wait_s = fault.detail, fault.wait_s
            if attempt + 1 < self._config.tries:
                await asyncio.sleep(max(wait_s, _pause_s(attempt)))
        return Unanswered(f"{detail}, {self._config.tries} times", final=False)

    async def _send(self, body: dict[str, Any]) -> Caption | Unanswered:
        try:
            try:
                status, headers, data = await self._post(body)
            except _CUT:  # the server may have closed a connection that was kept: take a new one
                status, headers, data = await self._post(body)
        except httpx2.RequestError as error:
            raise _Again(f"{self._where()}: {self._safe(repr(error))}") from None
        if status == httpx2.codes.OK:
            return self._read(data)
        said = f"HTTP {status}: {self._safe(data.decode('utf-8', 'replace'))}"
        if status in _AGAIN or status >= httpx2.codes.INTERNAL_SERVER_ERROR:
            raise _Again(said, _wish_s(headers.get("Retry-After")))
        if status in _USAGE or status < httpx2.codes.BAD_REQUEST:
            raise EndpointUsageError(
                f"{self._where()} answers {said}. Check base_url, model and key_env"
            )
        return Unanswered(said, final=True)

    async def _post(self, body: dict[str, Any]) -> tuple[int, httpx2.Headers, bytes]:
        assert self._client is not None, "not opened"
        async with self._client.stream("POST", self._url, json=body) as response:
            data = b""
            async for part in response.aiter_bytes():
                data += part
                if len(data) > _MOST_BYTES:
                    raise _Again(f"an answer of more than {_MOST_BYTES >> 20} MiB")
        return response.status_code, response.headers, data

    def _body(self, picture: bytes) -> dict[str, Any]:
        config = self._config
        url = f"data:image/{config.image_format};base64,{base64.b64encode(picture).decode()}"
        content = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": config.prompt},
        ]
        body = {
            "model": config.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": config.temperature,  # a server fills in what is not said
            "top_p": config.top_p,
            "max_tokens": config.max_tokens,
        }
        extras = {"top_k": config.top_k, "repetition_penalty": config.repetition_penalty}
        return body | {name: value for name, value in extras.items() if value is not None}

    def _where(self) -> str:
        """Name the server, and the proxy that stands before it, if one does."""
        parts = urlsplit(self._url)
        proxy = urllib.request.getproxies().get(parts.scheme)
        if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
            return self._url
        return f"{self._url} (by the proxy of {parts.scheme}_proxy; no_proxy names exceptions)"

    def _read(self, data: bytes) -> Caption:
        try:
            choice = _Reply.model_validate_json(data).choices[0]
        except ValidationError:  # a page of a proxy, above all
            said = self._safe(data.decode("utf-8", "replace"))
            raise _Again(f"no chat completion, but {said}") from None
        cut = None if choice.finish_reason is None else choice.finish_reason == "length"
        return Caption((choice.message.content or "").strip(), truncated=cut)

    def _safe(self, said: str) -> str:
        """Cut what a server says, on one line and without the key, which some repeat."""
        if self._key:
            said = said.replace(self._key, "…")
        return " ".join(said.split())[:_SHOWN]


@cache
def _trust() -> ssl.SSLContext:
    """Read the certificates that this machine trusts, once: it takes a while."""
    return httpx2.create_ssl_context()


def _read_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise EndpointUsageError(
            f"key_env names the variable {variable}, which is not set here. Set it, and have "
            "workers elsewhere get it by engine.forward_env"
        )
    if not key.isascii() or not key.isprintable():
        raise EndpointUsageError(f"{variable} holds what no header may: expected one line of ASCII")
    return key


def _pause_s(attempt: int) -> float:
    longest = min(_FIRST_PAUSE_S * 2**attempt, _LONGEST_PAUSE_S)
    return random.uniform(longest / 2, longest)  # so that many who wait do not come at once


def _wish_s(header: str | None) -> float:
    """Read a Retry-After, of seconds or a date; 0 for none."""
    try:
        seconds = float(header or 0)
    except ValueError:
        try:
            until = parsedate_to_datetime(header or "")
        except ValueError:
            return 0
        seconds = (until.astimezone(UTC) - datetime.now(UTC)).total_seconds()
    return min(seconds, _LONGEST_WISH_S) if seconds > 0 else 0  # NaN is not
