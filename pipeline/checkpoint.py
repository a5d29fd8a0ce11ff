"""Write a checkpoint into a new folder, which appears whole or not at all."""

import os
from pathlib import Path

from models.checkpoints.folder import CheckpointContent, refuse_existing, write
from shards.files.durable import whole_folder


def write_checkpoint(folder: Path, content: CheckpointContent) -> None:
    """Write a checkpoint into a new folder; CheckpointError if anything has its name."""
    folder = folder.expanduser().absolute()
    refuse_existing(folder)
    # named by the process: a worker may outlive its driver, and the next one writes here again
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    with whole_folder(folder, aside):
        write(aside, content)
        refuse_existing(folder)
