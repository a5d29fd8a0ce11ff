"""What a download is asked to do, as the command and the form say it."""

from importlib.metadata import version
from typing import Any, Literal

from pydantic import Field

from flows.recipe import EngineConfig, RecipeSection, as_recipe_errors
from pipeline.download.fetcher.opener import Bounds
from pipeline.download.fetcher.process import FetcherOptions
from pipeline.download.prepare import ListRequest


class DownloadRequest(RecipeSection):
    """A download; only the list, its columns and the size of parts decide what comes of it."""

    urls: str = Field(min_length=1, description="Parquet, CSV, TSV or JSON lines: file, folder, …")
    output: str = Field(min_length=1)
    url_column: str | None = None
    text_column: str | None = None
    part_size: int | None = Field(None, ge=1, description="rows in a part; 10,000")
    retry: bool = False
    workers: int | None = Field(None, ge=1, description="parts at a time; one per processor")
    threads: int = Field(64, ge=1, le=1024, description="requests at a time, of each worker")
    timeout: float = Field(10.0, gt=0, description="seconds of silence")
    deadline: float = Field(30.0, gt=0, description="seconds for all of an answer")
    max_bytes: int = Field(32 << 20, ge=1, le=1 << 31, description="of an answer")
    user_agent: str | None = Field(None, min_length=1)
    allow_private_addresses: bool = False
    record_outage: bool = False
    img2dataset: str | None = Field(None, description="the Python that has it")
    engine: Literal["local", "ray"] = "local"
    address: str | None = Field(None, description="of a running Ray cluster")

    @property
    def list(self) -> ListRequest:
        """Say which list it is."""
        return ListRequest(self.urls, self.url_column, self.text_column, self.part_size)

    @property
    def options(self) -> FetcherOptions:
        """Say how addresses are fetched; the Python is found where the work is."""
        agent = self.user_agent or default_agent()
        bounds = Bounds(self.timeout, self.deadline, self.max_bytes, agent)
        return FetcherOptions("", bounds, self.threads, self.allow_private_addresses)

    @property
    def engine_config(self) -> EngineConfig:
        """Say where the work runs."""
        return EngineConfig(
            kind=self.engine,
            address=self.address,
            actors=self.workers or "auto",
            gpus_per_actor=0,
            device="cpu",
        )


def request_of(values: dict[str, Any]) -> DownloadRequest:
    """Check what is asked for; raises RecipeError."""
    with as_recipe_errors():
        return DownloadRequest.model_validate(values)


def default_agent() -> str:
    """Say honestly who asks; the sites that opt out by name know img2dataset's."""
    return f"Mozilla/5.0 (compatible; capfilt/{version('capfilt')}; img2dataset)"
