"""Pictures as a user names them: files, folders, tars, or standard input, one at a time.

One that cannot be decoded comes with its reason instead of an image, and takes no other along.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from PIL import Image

from pipeline.media.decode import DecodeLimits, DecodeRefusal, decode
from shards.files.walk import walk_files
from shards.inputs.names import FOREIGN_EXTENSIONS, IMAGE_EXTENSIONS, is_tar, not_read
from shards.inputs.opening import open_samples
from shards.inputs.reader import RawSample, State, open_shard
from shards.inputs.shard import InputError, InputShard
from shards.reasons import SampleReason
from shards.store import filesystem, url_of

if TYPE_CHECKING:
    from torch import Tensor

    from models.blip.preprocess import Preprocess

STANDARD_INPUT = "-"
MAX_PICTURE_BYTES = 256 << 20
LIMITS = DecodeLimits(min_side=1, max_pixels=178_956_970, max_aspect=float("inf"))


@dataclass(frozen=True, slots=True)
class UserPicture:
    """An upright RGB image under the name that the user knows; or None, and why there is none."""

    name: str
    image: Image.Image | None
    reason: str | None = None
    detail: str | None = None


def read_pictures(locations: Sequence[str]) -> Iterator[UserPicture]:
    """Read pictures in the order of the locations; InputError for one that is not there.

    A location is a picture's file, a folder (its pictures and tars, by name, through all folders in
    it, but for hidden ones), a tar, all these local or of any fsspec store, or `-`: one picture on
    standard input. Pictures of formats that are not read are known by their ending, whatever is in
    them.
    """
    for location in locations:
        yield from _read(location)


def check_there(locations: Sequence[str]) -> None:
    """Raise InputError for the first location that is not there; nothing is read."""
    for location in locations:
        if location != STANDARD_INPUT:
            fs, path = filesystem(location)
            if not fs.exists(path):
                raise InputError(f"{location}: no such file or folder")


def read_picture(location: str) -> UserPicture:
    """Read the first picture of a location; InputError where there is none."""
    picture = next(read_pictures([location]), None)
    if picture is None:
        raise InputError(f"{location}: no picture in it ({', '.join(IMAGE_EXTENSIONS)}, or a tar)")
    return picture


def resized(data: bytes, preprocess: "Preprocess") -> "Tensor | str":
    """Decode a picture and make it the model's size: uint8 (3, H, W); or say why it cannot be."""
    side = max(preprocess.height, preprocess.width)
    decoded = decode(data, replace(LIMITS, wanted_side=side))
    if isinstance(decoded, DecodeRefusal):
        return str(decoded.reason)
    return preprocess.resize(decoded.image)


def _read(location: str) -> Iterator[UserPicture]:
    if location == STANDARD_INPUT:
        yield _decoded("standard input", sys.stdin.buffer.read(MAX_PICTURE_BYTES + 1))
        return
    fs, path = filesystem(location)
    if fs.isdir(path):
        for name in sorted(walk_files(fs, path.rstrip("/"))):
            if extension(name) in (*IMAGE_EXTENSIONS, *FOREIGN_EXTENSIONS) or is_tar(name):
                yield from _read_file(url_of(fs, name))
    elif fs.exists(path):
        yield from _read_file(location)
    else:
        raise InputError(f"{location}: no such file or folder")


def _read_file(url: str) -> Iterator[UserPicture]:
    if is_tar(url):
        yield from _read_tar(url)
        return
    if extension(url) in FOREIGN_EXTENSIONS:
        detail = not_read(f".{extension(url)}")
        yield UserPicture(url, None, SampleReason.FORMAT_NOT_ALLOWED, detail)
        return
    try:
        with open_shard(url) as file:
            picture = _decoded(url, file.read(MAX_PICTURE_BYTES + 1))
    except FileNotFoundError:
        detail = "a link to nothing, or gone meanwhile"
        picture = UserPicture(url, None, SampleReason.IMAGE_MISSING, detail)
    yield picture


def _read_tar(url: str) -> Iterator[UserPicture]:
    with open_samples(InputShard.of_tar(url)) as reader:
        is_reported = False
        for raw in reader:
            is_reported = raw.reason is not None
            yield _member(url, raw)
        if reader.state.state is not State.COMPLETE and not is_reported:
            yield UserPicture(url, None, str(reader.state.state), reader.state.detail)


def _member(url: str, raw: RawSample) -> UserPicture:
    name = f"{url}/{raw.key}"
    if raw.reason is not None:
        return UserPicture(name, None, raw.reason, raw.detail)
    if raw.image is None:
        return UserPicture(name, None, SampleReason.IMAGE_MISSING)
    return _decoded(name, raw.image)


def _decoded(name: str, data: bytes) -> UserPicture:
    if len(data) > MAX_PICTURE_BYTES:
        detail = f"more than {MAX_PICTURE_BYTES:,} bytes"
        return UserPicture(name, None, SampleReason.IMAGE_TOO_LARGE, detail)
    decoded = decode(data, LIMITS)
    if isinstance(decoded, DecodeRefusal):
        return UserPicture(name, None, decoded.reason, decoded.detail)
    return UserPicture(name, decoded.image)


def extension(name: str) -> str:
    """Return what a file's name ends with, in lower case and without the dot."""
    return PurePosixPath(name).suffix.lower().removeprefix(".")
