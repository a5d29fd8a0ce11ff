"""Which captioner writes, and how: sections of recipes, told apart by `kind`.

A recipe without `kind` means BLIP, and its identity is what it was before there were others.
"""

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from models.checkpoints import locate
from models.decoding.config import Decoding
from models.guests.config import MAX_PIXELS, FolderConfig, GuestConfig, ImageFormat, ModelConfig

NAME = Field("synthetic", pattern=r"^[a-z][a-z0-9_]*$", description="the origin of its texts")
CANDIDATES = Field(1, ge=1, le=1000, description="captions per picture")

_DECIDED_BY_FOLDER = {
    "method",
    "temperature",
    "top_p",
    "top_k",
    "beams",
    "length_penalty",
    "repetition_penalty",
    "no_repeat_ngram",
    "min_tokens",
}


class BlipCaptionerConfig(Decoding, FolderConfig):
    """BLIP's image-grounded decoder.

    CapFilt samples with nucleus 0.9 (BLIP, section 4.3); the lengths are those of the authors'
    demo.
    """

    kind: Literal["blip"] = "blip"
    name: str = NAME
    model: str = Field(description="a Hugging Face BLIP folder, or the id of one on the hub")
    candidates: int = CANDIDATES

    @model_validator(mode="after")
    def _enough(self) -> Self:
        check_candidates(self.method, self.beams, self.candidates)
        return self

    def look_for(self) -> None:
        """Raise CheckpointError for a name that leads nowhere, or to another family."""
        locate.look_for(self.model, self.revision)

    def identity(self) -> dict[str, Any]:
        """Leave out what recipes did not have when BLIP was the only captioner."""
        usual = {name for name in ("kind", "name") if name not in _changed(self)}
        return {key: value for key, value in super().identity().items() if key not in usual}


class TransformersCaptionerConfig(GuestConfig):
    """Any image-text-to-text model of transformers."""

    kind: Literal["transformers"]
    name: str = NAME
    candidates: int = CANDIDATES
    prompt: str = Field("", description="what a chat model is asked, a task's token, or nothing")
    generation: Literal["recipe", "folder"] = Field(
        "recipe", description="folder: how to decode is what its generation_config.json says"
    )
    method: Literal["nucleus", "beam", "greedy"] = "nucleus"
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(0.9, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    beams: int = Field(3, ge=2)
    length_penalty: float = 1.0
    repetition_penalty: float = Field(1.0, gt=0)
    no_repeat_ngram: int = Field(0, ge=0)
    min_tokens: int = Field(0, ge=0)
    max_tokens: int = Field(64, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens {self.min_tokens} is more than max_tokens {self.max_tokens}"
            )
        if self.generation == "recipe":
            check_candidates(self.method, self.beams, self.candidates)
            return self
        if both := sorted(_DECIDED_BY_FOLDER & self.model_fields_set):
            raise ValueError(f"generation: folder leaves no room for {', '.join(both)}")
        return self

    def identity(self) -> dict[str, Any]:
        """Leave out what the folder decides, which its digest covers."""
        unused = _DECIDED_BY_FOLDER if self.generation == "folder" else set()
        return {key: value for key, value in super().identity().items() if key not in unused}


class EndpointCaptionerConfig(ModelConfig):
    """A server that speaks OpenAI's chat completions, such as vLLM or SGLang.

    Its texts are not reproducible: servers vary, with a seed and at temperature 0, too.
    """

    kind: Literal["endpoint"]
    name: str = NAME
    candidates: int = CANDIDATES
    base_url: str = Field(description="up to /v1, as in http://127.0.0.1:8000/v1")
    model: str = Field(description="as the server names it")
    prompt: str = Field("Describe this picture in one sentence.", min_length=1)
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(0.9, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, description="only for servers that know it, as vLLM")
    repetition_penalty: float | None = Field(None, gt=0, description="only for those that know it")
    max_tokens: int = Field(64, ge=1)
    max_pixels: int = Field(MAX_PIXELS, ge=1024, description="larger pictures are scaled down")
    image_format: ImageFormat = "jpeg"
    key_env: str | None = Field(None, description="the variable that holds the server's key")
    concurrency: int = Field(8, ge=1, le=256, description="requests under way at a time")
    timeout_s: float = Field(120, gt=0, description="of a whole request, its last byte included")
    tries: int = Field(6, ge=1, description="of a request, before its picture is refused")
    patience_s: float = Field(240, gt=0, description="with a request, its tries and waits included")

    @field_validator("base_url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected http://HOST:PORT/v1 or https://HOST/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("expected an address alone; a key is given by key_env")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.candidates > 1 and self.temperature == 0:
            raise ValueError(
                f"candidates is {self.candidates}, but temperature 0 writes one text for a picture"
            )
        return self

    @property
    def most_at_once(self) -> int:
        """The pictures of a batch: as many as are asked about at the same time."""
        return max(1, self.concurrency // self.candidates)

    @property
    def longest_s(self) -> float:
        """The longest that a batch may take: in the end it is asked whether the server is there."""
        waves = -(-self.candidates // self.concurrency)
        return (waves + 1) * self.patience_s

    @property
    def secrets(self) -> tuple[str, ...]:
        """The environment variables that it reads keys from."""
        return () if self.key_env is None else (self.key_env,)

    def identity(self) -> dict[str, Any]:
        """Leave out where the server is and how it is asked; its digest holds the model's name."""
        pace = {"base_url", "key_env", "concurrency", "timeout_s", "tries", "patience_s"}
        return {key: value for key, value in super().identity().items() if key not in pace}


def check_candidates(method: str, beams: int, candidates: int) -> None:
    """Raise ValueError for more texts than a method has to give."""
    most = {"nucleus": candidates, "beam": beams, "greedy": 1}[method]
    if candidates > most:
        raise ValueError(
            f"candidates is {candidates}, but {method} decoding writes at most {most} for a picture"
        )


def _changed(config: ModelConfig) -> set[str]:
    fields = type(config).model_fields
    return {name for name in fields if getattr(config, name) != fields[name].default}


def _kind_of(section: Any) -> str:  # noqa: ANN401 - whatever a recipe holds
    kind = section.get("kind", "blip") if isinstance(section, dict) else None
    return f"kind={kind or getattr(section, 'kind', 'blip')}"


def _is_list(section: Any) -> str:  # noqa: ANN401 - whatever a recipe holds
    return "kind=list" if isinstance(section, list | tuple) else "kind=one"


CaptionerConfig = Annotated[
    Annotated[BlipCaptionerConfig, Tag("kind=blip")]
    | Annotated[TransformersCaptionerConfig, Tag("kind=transformers")]
    | Annotated[EndpointCaptionerConfig, Tag("kind=endpoint")],
    Discriminator(
        _kind_of,
        custom_error_type="captioner_kind",
        custom_error_message="kind should be blip, transformers or endpoint",
    ),
]

CaptionerConfigs = Annotated[
    Annotated[CaptionerConfig, Tag("kind=one")]
    | Annotated[tuple[CaptionerConfig, ...], Field(min_length=1), Tag("kind=list")],
    Discriminator(_is_list),
]
