"""Where a stage runs and how much it does there: a GPU's share, or a smoke's."""

import shutil
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from models.blip.config import Dtype, Size, resolve_dtype
from models.decoding.config import Decoding
from models.devices import name_device
from models.roles.captioner import BlipCaptioner
from models.roles.filter import Filter
from scripts.bench.inputs import Inputs, made_up_pairs, write_inputs, write_models


@dataclass(frozen=True)
class Setting:
    """The device, the folder for inputs and lines, and whether this is only a smoke."""

    device: torch.device
    out: Path
    smoke: bool

    @property
    def about(self) -> dict[str, Any]:
        """What each line says: figures of a CPU or of a smoke are none."""
        measured = self.device.type == "cuda" and not self.smoke
        return {} if measured else {"note": f"unmeasured: a smoke on {name_device(self.device)}"}

    @property
    def size(self) -> Size:
        """Of the models."""
        return "tiny" if self.smoke else "base"

    @property
    def px(self) -> int:
        """Of the models' pictures."""
        return 64 if self.smoke else 384

    @property
    def tokens(self) -> int:
        """Of a caption."""
        return 4 if self.smoke else 20

    def pick(self, real: Any, small: Any) -> Any:  # noqa: ANN401 - numbers, or lists of them
        """Choose the smoke's value in a smoke."""
        return small if self.smoke else real

    def inputs(self, images: int, per_shard: int, warm_up: int) -> Inputs:
        """Write pictures beside the models, once for the same numbers."""
        folder = self.out / f"inputs-{images}-{per_shard}-{warm_up}"
        if not folder.is_dir():
            aside = folder.with_suffix(".partial")
            shutil.rmtree(aside, ignore_errors=True)
            pairs = islice(made_up_pairs(warm_up + images), warm_up + images)
            write_inputs(aside / "input", pairs, warm_up, per_shard)
            for path in self.models.iterdir():
                (aside / path.name).symlink_to(path)
            aside.rename(folder)
        dtype = resolve_dtype("auto", self.device)
        return Inputs(folder, self.device, dtype, self.pick(64, 2), images, self.tokens)

    @cached_property
    def models(self) -> Path:
        """A folder with a random captioner and filter, and tiny ones in `tiny`."""
        folder = (self.out / f"models-{self.size}-{self.px}").absolute()
        if not folder.is_dir():
            aside = folder.with_suffix(".partial")
            shutil.rmtree(aside, ignore_errors=True)
            write_models(aside, self.size, self.px)
            write_models(aside / "tiny", "tiny", 64)
            aside.rename(folder)
        return folder

    def captioner(self, dtype: Dtype, device: torch.device, **decoding: object) -> BlipCaptioner:
        """Load the captioner."""
        lengths = {"min_tokens": self.tokens, "max_tokens": self.tokens}
        how = Decoding.model_validate({**lengths, **decoding})
        return BlipCaptioner.load(
            self.models / "captioner", decoding=how, dtype=dtype, device=device
        )

    def scorer(self, dtype: Dtype, device: torch.device) -> Filter:
        """Load the filter."""
        return Filter.load(self.models / "filter", dtype=dtype, device=device)

    def pictures(self, count: int, px: int | None = None) -> torch.Tensor:
        """Draw uint8 pictures (count, 3, px, px), the same for the same count."""
        side = px or self.px
        generator = torch.Generator().manual_seed(count)
        rough = torch.rand(count, 3, 8, 8, generator=generator)
        smooth = torch.nn.functional.interpolate(rough, (side, side), mode="bilinear")
        return (smooth * 255).to(torch.uint8)
