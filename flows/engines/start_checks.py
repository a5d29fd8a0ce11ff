"""What a machine must have before a worker works there: each checks for itself, at its start.

A machine that fails is left out by name; the others go on. Nothing of ours is imported here but
what the checks need, so that a stranger's packages are noticed first.
"""

import functools
import hashlib
import importlib.metadata
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flows.engines.engine import EngineError
from shards.files.durable import TEMPORARY
from shards.store import Store, filesystem

HOME = Path(__file__).resolve().parents[2]
PACKAGES = ("shards", "models", "pipeline", "flows")


class MachineUnfit(EngineError):  # noqa: N818 - reads as what happened
    """A machine on which no worker of this run can start, and what to do there."""


@dataclass(frozen=True, slots=True)
class Demands:
    """What a job needs of the machines: to read and write, and of memory for each worker."""

    run_url: str
    inputs: tuple[str, ...]
    scratch_bytes: int = 0
    worker_bytes: int = 0
    writes: bool = True  # into the run folder


@dataclass(frozen=True, slots=True)
class Requirements:
    """What every machine must have; `environment` holds credentials, which are shown nowhere."""

    version: str
    code: str
    run_url: str
    probe: str  # a file in the run folder, as the driver sees it
    probe_sha256: str
    inputs: tuple[str, ...]  # one of each store or folder
    scratch_bytes: int
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


@contextmanager
def requirements(demands: Demands, forwarded: Iterable[str] = ()) -> Iterator[Requirements]:
    """Collect what every machine must have, as long as the block lasts.

    A job that writes gets a file of its own into the run folder, which all must see. `forwarded`:
    names of environment variables that workers need. Raises EngineError where one is not set here.
    """
    environment = {name: os.environ.get(name) for name in forwarded}
    if unset := [name for name, value in environment.items() if value is None]:
        raise EngineError(
            f"forward_env names {', '.join(unset)}, not set here. Set it, or take it out"
        )
    store, probe = Store(demands.run_url), "run.json"
    if demands.writes:
        probe = f"{TEMPORARY}probe-{secrets.token_hex(8)}"
        store.put(probe, probe.encode())
    try:
        yield Requirements(
            importlib.metadata.version("capfilt"),
            code_digest(),
            demands.run_url,
            probe,
            store.sha256(probe),
            tuple(_one_each(demands.inputs)),
            demands.scratch_bytes,
            {name: value for name, value in environment.items() if value is not None},
        )
    finally:
        if demands.writes:
            store.delete(probe)


def check_packages() -> None:
    """Refuse to work with a stranger's `models` package that shadows ours on the path."""
    import models
    import pipeline

    for package in (models, pipeline):
        folder = Path(str(package.__file__)).resolve().parent
        if folder.parent != HOME:
            raise MachineUnfit(
                f"a Ray worker found the package {package.__name__} in {folder}, expected it in "
                f"{HOME}: another folder of that name comes first on its path. Rename that "
                "folder, or take it off PYTHONPATH"
            )


def check_machine(needed: Requirements) -> None:
    """Take over credentials, then check code, run folder, inputs and disk; raises MachineUnfit."""
    os.environ.update(needed.environment)
    check_packages()
    _check_code(needed)
    _check_run_folder(needed)
    for url in needed.inputs:
        _check_readable(url)
    _check_disk(needed)


@functools.cache
def code_digest() -> str:
    """Hash the source of our packages: two machines with equal digests run the same code."""
    files = sorted(
        path for package in PACKAGES for path in (HOME / package).rglob("*.py") if path.is_file()
    )
    digest = hashlib.sha256()
    for path in files:
        digest.update(str(path.relative_to(HOME)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _check_code(needed: Requirements) -> None:
    version = importlib.metadata.version("capfilt")
    if (version, code_digest()) != (needed.version, needed.code):
        raise MachineUnfit(
            f"capfilt {version} (code {code_digest()}) is installed there; expected the driver's "
            f"{needed.version} (code {needed.code}). Install the same capfilt on every machine"
        )


def _check_run_folder(needed: Requirements) -> None:
    store = Store(needed.run_url)
    try:
        seen = store.sha256(needed.probe)
    except Exception as error:  # whatever a store's client raises
        raise MachineUnfit(
            f"the run folder {needed.run_url} is not there as the driver sees it: no file "
            f"{needed.probe} in it ({_kind(error)}). Put the run on a disk that all machines "
            "share, or in an object store (s3://…), with credentials by forward_env"
        ) from None
    if seen != needed.probe_sha256:
        raise MachineUnfit(
            f"{needed.run_url}/{needed.probe} is another file there than the driver's. Put the run "
            "on a disk that all machines share, or in an object store (s3://…)"
        )


def _check_readable(url: str) -> None:
    try:
        fs, path = filesystem(url)
        if url.endswith("/"):  # a folder of pictures
            fs.ls(path)
            return
        with fs.open(path, "rb", block_size=1024, cache_type="none") as file:
            file.read(1)
    except Exception as error:  # whatever a store's client raises
        raise MachineUnfit(
            f"the input {url} cannot be read there ({_kind(error)}). Put inputs where all machines "
            "reach them under the same name, with credentials by forward_env"
        ) from None


def _check_disk(needed: Requirements) -> None:
    """Demand room for what a worker stages: beside the run, or in the system's temporary folder."""
    store = Store(needed.run_url)
    folder = store.path("data").removesuffix("/data") if store.is_local else tempfile.gettempdir()
    free, wanted = shutil.disk_usage(folder).free, needed.scratch_bytes
    if free < wanted:
        raise MachineUnfit(
            f"{folder} has {free / 1e9:.1f} GB free; a worker needs {wanted / 1e9:.1f} GB for the "
            "shards it writes. Free some space there, or set TMPDIR"
        )


def _one_each(urls: Iterable[str]) -> Iterator[str]:
    """Yield the first URL of each store: bucket and host, or local folder."""
    seen = set()
    for url in urls:
        scheme, there, rest = url.partition("://")
        store = f"{scheme}://{rest.partition('/')[0]}" if there else str(Path(url).parent)
        if store not in seen:
            seen.add(store)
            yield url


def _kind(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"on {socket.gethostname()}: {reason}"
