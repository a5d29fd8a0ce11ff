"""A server that speaks OpenAI's chat completions as a captioner.

Its texts are not reproducible. A picture that it does not answer is refused, and the others go on:
whose fault it was is told by a small picture, which it answered at the start and is asked again.
"""

import asyncio
import logging
from collections.abc import Sequence

from PIL import Image

from models.captioners.captioner import Caption, CaptionerInfo, Refusal
from models.captioners.chat import ChatClient, EndpointError, EndpointUsageError, Unanswered
from models.captioners.config import EndpointCaptionerConfig
from models.guests.picture import Prepared, bounded, encode

_TRIAL_SIDE = 64  # pixels

_log = logging.getLogger(__name__)


def check(config: EndpointCaptionerConfig) -> CaptionerInfo:
    """Ask the server about a small picture; EndpointError says what is wrong with it."""
    EndpointCaptioner(config)
    _log.warning("captions of %s are not reproducible: asked again, it varies", config.model)
    return CaptionerInfo(digest(config), config, reproducible=False)


def digest(config: EndpointCaptionerConfig) -> str:
    """Sum up what is asked, of which model; where it is served changes nothing."""
    return config.digest_of(config.model)


class EndpointCaptioner:
    """A server, asked once for each caption; one thread at a time."""

    def __init__(self, config: EndpointCaptionerConfig) -> None:
        """Ask about a small picture at once; EndpointError if that is not answered."""
        self._config, self.digest = config, digest(config)
        self._client = ChatClient(config)
        self.prepare_key = f"{config.image_format} of {config.max_pixels} pixels"
        self._trial = self._encode(Image.linear_gradient("L").resize((_TRIAL_SIDE, _TRIAL_SIDE)))
        self._check_trial(asyncio.run(self._ask([self._trial]))[0])

    def prepare(self, picture: Image.Image) -> Prepared:
        """Write a picture as the file that is sent; several threads may ask at once."""
        data = self._encode(picture)
        return Prepared(data, len(data))

    def caption(
        self, batch: Sequence[Prepared], keys: Sequence[str], count: int
    ) -> list[list[Caption] | Refusal]:
        """Ask `count` times about each prepared picture; keys change nothing here.

        EndpointError if the server answers nothing any more.
        """
        assert len(keys) == len(batch)
        asked = [prepared.content for prepared in batch for _ in range(count)]
        answers = asyncio.run(self._ask(asked))
        return [_together(answers[n : n + count]) for n in range(0, len(answers), count)]

    def _encode(self, picture: Image.Image) -> bytes:
        return encode(bounded(picture, self._config.max_pixels), self._config.image_format)

    async def _ask(self, pictures: Sequence[bytes]) -> list[Caption | Unanswered]:
        async with self._client.opened():
            try:
                async with asyncio.TaskGroup() as group:  # the first error ends the others
                    tasks = [group.create_task(self._ask_one(data)) for data in pictures]
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _ask_one(self, picture: bytes) -> Caption | Unanswered:
        answer = await self._client.ask(picture)
        mute = isinstance(answer, Unanswered) and not answer.final
        if mute and picture is not self._trial:
            self._check_trial(await self._client.ask(self._trial))
        return answer

    def _check_trial(self, answer: Caption | Unanswered) -> None:
        if not isinstance(answer, Unanswered):
            return
        if answer.final:
            raise EndpointUsageError(
                f"{self._config.base_url} does not take a picture for {self._config.model}: "
                f"{answer.detail}. Check that the model reads pictures and has a chat template"
            )
        raise EndpointError(
            f"{self._config.base_url} does not answer: {answer.detail}. Start it or wait for it, "
            "then run the same command again"
        )


def _together(answers: Sequence[Caption | Unanswered]) -> list[Caption] | Refusal:
    captions = [answer for answer in answers if isinstance(answer, Caption)]
    unanswered = [answer for answer in answers if isinstance(answer, Unanswered)]
    return Refusal(unanswered[0].detail) if unanswered else captions
