"""The one place that knows the kinds of scorers: opens them, and checks them without weights."""

import torch

from models.blip.config import DtypeChoice
from models.scorers import blip, dual_encoder
from models.scorers.config import BlipScorerConfig, DualEncoderConfig
from models.scorers.scorer import Scorer, ScorerInfo


def open_scorer(
    config: BlipScorerConfig | DualEncoderConfig,
    *,
    dtype: DtypeChoice = "auto",
    device: str | torch.device = "cpu",
) -> Scorer:
    """Load a scorer of any kind; CheckpointError says what is wrong with it."""
    if isinstance(config, BlipScorerConfig):
        return blip.BlipScorer.load(config, dtype=dtype, device=device)
    return dual_encoder.DualEncoder(config, dtype=dtype, device=device)


def check_scorer(config: BlipScorerConfig | DualEncoderConfig) -> ScorerInfo:
    """Check a scorer of any kind without its weights in memory; CheckpointError for a bad one."""
    if isinstance(config, BlipScorerConfig):
        return blip.check(config)
    return dual_encoder.check(config)
