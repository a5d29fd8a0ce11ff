"""Bounds on a file of weights, checked before a library parses it.

Tensors take as many bytes as the file has; what is written about them need not: a header of 100 MB
names a million tensors of nothing, and a few bytes of pickle build a tuple that takes for ever to
hash. So headers are bounded in bytes and names, pickles in bytes, steps and what they build.
"""

import io
import json
import os
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from models.bounded_file import open_plain

MOST_TENSORS = 20_000  # BLIP's largest, with momentum copies: some 2,000
_HEADER_BYTES = 400 * MOST_TENSORS
_PICKLE_BYTES = 16 << 20
_MOST_STEPS = 500_000  # of a pickle; one of 1,000 tensors takes 40,000
_MOST_WEIGHT = 10 * _MOST_STEPS  # what a pickle builds, each part as often as it is reached
_ZIP = b"PK\x03\x04"
# all that tables of tensors and an optimizer's state are made of
_NAMES = re.compile(
    r"collections OrderedDict"
    r"|torch(\.cuda)? \w+Storage|torch\.storage \w+Storage|torch (Size|device|bool|[a-z]+\d+)"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|parameter)|torch\.nn\.parameter Parameter"
)
_PUT = {"BINPUT", "LONG_BINPUT", "PUT"}
_GET = {"BINGET", "LONG_BINGET", "GET"}
_LEGACY_PICKLES = 5  # magic number, version, machine, the object, the keys of its storages


def check_safetensors(path: Path) -> None:
    """Raise ValueError where the header of a safetensors file is no size for one."""
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise ValueError("it is empty; download it again")
        length = int.from_bytes(file.read(8), "little")
        if length > _HEADER_BYTES:
            raise ValueError(
                f"its header has {length} bytes; expected at most {_HEADER_BYTES}, which is enough "
                f"for {MOST_TENSORS} tensors"
            )
        names = json.loads(file.read(length)) if size >= 8 + length else {}
    wanted = 8 + length + max(_ends(names), default=0)
    if size < wanted:
        raise ValueError(f"it is cut: it has {size:,} of {wanted:,} bytes; download it again")
    if len(names) > MOST_TENSORS:
        raise ValueError(f"it names {len(names)} tensors; expected at most {MOST_TENSORS}")


def _ends(header: object) -> Iterator[int]:
    """List where tensors end, behind the header, as it says; the library checks what else it is."""
    entries = header.values() if isinstance(header, dict) else ()
    for entry in entries:
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if isinstance(offsets, list) and offsets and isinstance(offsets[-1], int):
            yield offsets[-1]


def check_pickle(path: Path) -> bool:
    """Raise ValueError where pickled weights ask for too much, UnpicklingError where for code.

    Returns whether it is a zip, whose tensors can be mapped; those of before torch 1.6 are none.
    """
    with open_plain(path) as file:
        start = file.read(len(_ZIP))
        if not start:
            raise ValueError("it is empty; download it again")
        is_zip = start == _ZIP
        file.seek(0)
        if is_zip:
            _check_zip(file)
        else:
            stream = io.BytesIO(file.read(_PICKLE_BYTES))
            for _ in range(_LEGACY_PICKLES):
                _check_stream(stream)
    return is_zip


class _ShortReads(io.BufferedReader):
    """A file whose parts are read only where they are small: zipfile trusts what a zip says."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return super().read(_PICKLE_BYTES)  # of the end alone, where its table is sought
        if size > _PICKLE_BYTES:
            raise ValueError(f"it has a part of {size} bytes; expected at most {_PICKLE_BYTES}")
        return super().read(size)


def _check_zip(file: BinaryIO) -> None:
    try:
        opened = zipfile.ZipFile(_ShortReads(io.FileIO(os.dup(file.fileno()))))
    except zipfile.BadZipFile:
        raise ValueError("it is cut: the table at its end is missing; download it again") from None
    with opened as archive:
        members = archive.infolist()
        if len(members) > MOST_TENSORS:
            raise ValueError(f"it has {len(members)} members; expected at most {MOST_TENSORS}")
        if len({member.filename.lower() for member in members}) != len(members):
            raise ValueError("it has two members of one name")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("it is compressed; torch's are not")
        pickles = [member for member in members if member.filename.lower().endswith(".pkl")]
        for member in pickles:
            if member.file_size > _PICKLE_BYTES:
                raise ValueError(
                    f"its pickle has {member.file_size} bytes; expected at most {_PICKLE_BYTES}"
                )
            _check_stream(io.BytesIO(archive.read(member)))


def _check_stream(stream: BinaryIO) -> None:
    """Walk through a pickle without building anything, and weigh what it would build."""
    stack: list[int | None] = []  # weights; None is a mark
    memo: dict[object, int | None] = {}
    for step, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if step > _MOST_STEPS:
            raise ValueError(f"its pickle takes more than {_MOST_STEPS} steps")
        if opcode.name == "GLOBAL" and not _NAMES.fullmatch(str(argument)):
            raise pickle.UnpicklingError(f"it asks for {argument}")
        if opcode.name in _PUT:
            memo[argument] = stack[-1]
        elif opcode.name == "MARK":
            stack.append(None)
        else:
            weight = memo[argument] if opcode.name in _GET else _weigh(opcode, stack)
            if weight is None or weight > _MOST_WEIGHT:
                raise ValueError("its pickle builds far more than it holds")
            stack += [weight] * len(opcode.stack_after)


def _weigh(opcode: pickletools.OpcodeInfo, stack: list[int | None]) -> int:
    """Take from the stack what an operation takes, and weigh what it makes of that."""
    weight, wanted = 1, list(opcode.stack_before)
    if pickletools.markobject in wanted:
        while (part := stack.pop()) is not None:
            weight += part
        wanted = wanted[: wanted.index(pickletools.markobject)]
    for _ in wanted:
        weight += stack.pop() or 0
    return weight
