"""The one place that knows the kinds of captioners: opens them, and checks them without weights.

transformers' models take seconds to import: who needs none of them does not wait.
"""

import torch

from models.blip.config import DtypeChoice
from models.captioners import blip, endpoint
from models.captioners.captioner import Captioner, CaptionerInfo
from models.captioners.config import (
    BlipCaptionerConfig,
    EndpointCaptionerConfig,
    TransformersCaptionerConfig,
)

AnyConfig = BlipCaptionerConfig | TransformersCaptionerConfig | EndpointCaptionerConfig


def open_captioner(
    config: AnyConfig,
    *,
    seed: int = 0,
    dtype: DtypeChoice = "auto",
    device: str | torch.device = "cpu",
) -> Captioner:
    """Load a captioner of any kind; CheckpointError or EndpointError says what is wrong with it."""
    if isinstance(config, BlipCaptionerConfig):
        return blip.BlipCaptioner.load(config, seed=seed, dtype=dtype, device=device)
    if isinstance(config, TransformersCaptionerConfig):
        from models.captioners import transformers

        return transformers.TransformersCaptioner(config, seed=seed, dtype=dtype, device=device)
    return endpoint.EndpointCaptioner(config)


def check_captioner(config: AnyConfig) -> CaptionerInfo:
    """Check a captioner of any kind without its weights in memory; the same errors."""
    if isinstance(config, BlipCaptionerConfig):
        return blip.check(config)
    if isinstance(config, TransformersCaptionerConfig):
        from models.captioners import transformers

        return transformers.check(config)
    return endpoint.check(config)
