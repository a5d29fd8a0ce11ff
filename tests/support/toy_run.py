"""Clean a folder of tars with the shipped tiny models, in this process."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.recipe import Recipe
from flows.stages import clean
from models.checkpoints import locate


def clean_world(world: Path, output: Path, scorer: Path | None = None, **write: str) -> None:
    """Clean `world` into the run folder `output`, in fp32."""
    recipe = Recipe.model_validate(
        {
            "input": {"urls": [str(world)]},
            "output": str(output),
            "dtype": "fp32",
            "caption": {"model": str(locate.SHIPPED["tiny-captioner"])},
            "score": {"model": str(scorer or locate.SHIPPED["tiny-filter"])},
            "write": write,
            "engine": {"kind": "local"},
        }
    )
    job = clean.prepare(recipe)
    clean.finish(job, clean.clean_shards(job, _Silent()))


class _Silent:
    def begin(self, *_: Any) -> None: ...
    def under_way(self, *_: Any) -> None: ...
    def ended(self, *_: Any) -> None: ...


def write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    """Write a tar of members by name."""
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
