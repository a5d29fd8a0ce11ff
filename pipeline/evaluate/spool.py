"""Image states of a whole set, kept in a file: a ViT-B at 384 pixels makes 2 MB of each picture."""

import mmap
from tempfile import TemporaryFile
from typing import Self

import torch
from torch import Tensor

from models.roles.retrieval import EncodedImages


class StateSpool:
    """Collects images as they are looked at; a context manager, which removes the file.

    The file lies in the folder for temporary files (`TMPDIR`). Of what `whole` gives, only the unit
    vectors and the states in use take memory that cannot be taken back.
    """

    def __init__(self) -> None:
        self._file = TemporaryFile()  # noqa: SIM115 - this class is its context manager
        self._units: list[Tensor] = []
        self._states = torch.empty(0)  # of which shape and kind all others are

    def __enter__(self) -> Self:
        """Return the spool itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the file; what was mapped of it stays until it is let go."""
        self._file.close()

    def add(self, images: EncodedImages) -> None:
        """Keep some more images; OSError where the disk is full."""
        states = images.states.cpu().contiguous()
        self._file.write(states.view(torch.uint8).numpy().data)
        self._states = states[:0]
        self._units.append(images.unit)

    def whole(self) -> EncodedImages | None:
        """Return all images as one batch, the states on the CPU; None if there are none."""
        if not self._units:
            return None
        self._file.flush()
        mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
        flat = torch.frombuffer(mapped, dtype=self._states.dtype)
        return EncodedImages(flat.view(-1, *self._states.shape[1:]), torch.cat(self._units))
