"""Finding a checkpoint by the name that people give it: a folder, a shipped one, or the hub's.

Nothing here loads torch, so that a name that leads nowhere is told at once.
"""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from models.checkpoints.local_folder import CONFIG, check_family, checkpoint_in, near_to, path_of

_VOCABULARIES = ("tokenizer.json", "vocab.txt")
_SETTINGS = [
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    *_VOCABULARIES,
]
# files of weights, best first: alone, or the index of several
WEIGHT_FILES = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
# checkpoints that come with capfilt: tiny ones, trained on the toy world
SHIPPED = {
    f"tiny-{role}": Path(__file__).parents[1] / "tiny" / role for role in ("captioner", "filter")
}

# by the classes of errors, of the hub's library and of what it speaks through
_PLAIN = {
    "GatedRepoError": "its owner gives it to whom asks on its page; then set HF_TOKEN",
    "RepositoryNotFoundError": "it has no such model, or a private one, for which HF_TOKEN is read",
    "RevisionNotFoundError": "the model has no such revision",
    "ProxyError": "the proxy of this network does not let it through to {hub}",
    "TimeoutException": "{hub} does not answer",
    "ConnectError": "no connection to {hub}",
    "NetworkError": "the connection to {hub} broke off",
}

_COMMIT = re.compile(r"[0-9a-f]{40}")


class CheckpointError(RuntimeError):
    """A checkpoint is missing or cannot be used; the message says where, why and what to do."""

    exit_code: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class ResolvedCheckpoint:
    """The folder that a checkpoint's name led to, and a name that leads to the same content.

    `name` and `revision` are for other processes and machines: an absolute path without a
    revision, or a hub id with the commit that was read here.
    """

    name: str
    revision: str | None
    folder: Path


def pin(name: str | Path, revision: str | None = None) -> ResolvedCheckpoint:
    """Resolve a name once for a whole run: see `resolve`, which may ask the hub.

    What follows reads `folder`: `described = checkpoint.describe(pinned.folder, role)` for the
    settings, then `checkpoint.info(described)` for the digest, which reads all of the weights.
    """
    folder = resolve(name, revision)
    if path_of(name).is_dir() or str(name) in SHIPPED:
        return ResolvedCheckpoint(str(folder), None, folder)
    return ResolvedCheckpoint(str(name), folder.name, folder)  # the hub's cache names commits


def resolve(name: str | Path, revision: str | None = None) -> Path:
    """Find the folder of a local path, of a shipped checkpoint, or of a hub id, downloading it.

    `revision`: branch, tag or commit of a hub id.
    """
    if (here := _blip_here(name, revision)) is not None:
        return here
    if (cached := _pinned_in_cache(str(name), revision)) is not None:
        return cached
    _look_into(str(name), revision)  # first: weights may be tens of GB
    for single, index in WEIGHT_FILES:
        stem, ending = single.split(".")
        wanted = [*_SETTINGS, single, index, f"{stem}-*.{ending}"]
        folder = download(str(name), revision, wanted)
        if (folder / single).is_file() or (folder / index).is_file():
            return folder
    if _is_offline():
        raise CheckpointError(_not_in_cache(str(name), revision))
    raise CheckpointError(f"the hub's {name} holds no model.safetensors and no pytorch_model.bin")


def _pinned_in_cache(name: str, revision: str | None) -> Path | None:
    """Find a commit whose weights are all here: the hub is not asked, by any of many workers."""
    if revision is None or not _COMMIT.fullmatch(revision):
        return None
    import huggingface_hub

    cache = huggingface_hub.constants.HF_HUB_CACHE
    look = partial(huggingface_hub.try_to_load_from_cache, name, cache_dir=cache, revision=revision)

    def is_there(file: str) -> bool:
        return isinstance(look(file), str)

    config = look(CONFIG)
    words = any(map(is_there, _VOCABULARIES))
    weights = any(is_there(single) for single, _ in WEIGHT_FILES)  # parts of an index may lack
    return Path(config).parent if isinstance(config, str) and words and weights else None


def look_for(name: str | Path, revision: str | None = None) -> None:
    """Raise what `resolve` would, as far as settings tell: of the hub, config.json alone is got."""
    if _blip_here(name, revision) is None:
        _look_into(str(name), revision)


def _blip_here(name: str | Path, revision: str | None) -> Path | None:
    folder = find_here(name, revision)
    if folder is not None:
        _check_family(folder)
    return folder


def find_here(name: str | Path, revision: str | None = None) -> Path | None:
    """Find the folder of a local path or shipped checkpoint; None for what may be a hub id.

    The model may be of any family. Raises CheckpointError for what can be neither. No network is
    asked.
    """
    path = path_of(name)
    if name != "" and path.is_dir():  # "" would be the folder that one stands in
        try:
            return checkpoint_in(path.absolute(), revision).resolve()
        except ValueError as error:
            raise CheckpointError(str(error)) from None
    if str(name) in SHIPPED:
        return SHIPPED[str(name)]
    if path.is_file():
        raise CheckpointError(_instead_of(path))
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", str(name)):
        what = f"folder {path.absolute()}" if name else "without a name"
        raise CheckpointError(
            f"there is no checkpoint {what}. "
            "Give an existing folder or a Hugging Face hub id such as OWNER/NAME." + _others(name)
        )
    return None


def _look_into(name: str, revision: str | None) -> None:
    try:
        check_family(download(name, revision, [CONFIG]))
    except ValueError as error:
        raise CheckpointError(f"the hub's {name}: {error}") from None


def _check_family(folder: Path) -> None:
    try:
        check_family(folder)
    except ValueError as error:
        raise CheckpointError(str(error)) from None


def _others(name: str | Path) -> str:
    """Say which names are like one that leads nowhere; of a short one, what comes along, else."""
    if near := near_to(name, SHIPPED):
        return near
    return "" if "/" in str(name) else f" With capfilt come {' and '.join(sorted(SHIPPED))}."


def _instead_of(path: Path) -> str:
    if (path.parent / CONFIG).is_file():
        return f"{path} is a file of a checkpoint. Give its folder: {path.parent.absolute()}"
    return (
        f"{path} is a file. Give the folder of a checkpoint; `capfilt checkpoint import` makes one "
        "of an original .pth file."
    )


def download(name: str, revision: str | None, wanted: list[str]) -> Path:
    """Fetch what is not in the cache; the hub's library locks each file, so once a node."""
    import huggingface_hub  # a third of a second

    try:
        return Path(
            huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=wanted)
        )
    except (OSError, ValueError) as error:  # the hub's own errors are among these
        if _is_offline():
            raise CheckpointError(_not_in_cache(name, revision)) from error
        raise CheckpointError(
            f"{name!r} is no folder here, and the Hugging Face hub did not give it "
            f"(revision {revision or 'main'}): {plain_reason(error)}. Check the name and the "
            f"network, or download the checkpoint and give its folder.{_others(name)}"
        ) from error


def _is_offline() -> bool:
    import huggingface_hub

    return huggingface_hub.constants.is_offline_mode()


def _not_in_cache(name: str, revision: str | None) -> str:
    import huggingface_hub

    return (
        f"{name!r} is no folder here, and not in the cache of the Hugging Face hub "
        f"(revision {revision or 'main'}, {huggingface_hub.constants.HF_HUB_CACHE}); "
        f"HF_HUB_OFFLINE forbids to fetch it. Run `hf download {name}` where there is a "
        f"network, with HF_HOME on a disk that all nodes share, or give its folder.{_others(name)}"
    )


def plain_reason(error: BaseException) -> str:
    """Say in plain words why the hub does not serve, where its library's own are none."""
    import huggingface_hub

    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    named = {kind.__name__ for one in causes for kind in type(one).__mro__}
    for kind, words in _PLAIN.items():
        if kind in named:
            return words.format(hub=huggingface_hub.constants.ENDPOINT)
    return str(error).strip().partition("\n")[0] or repr(error)
