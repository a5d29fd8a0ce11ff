"""The one place that knows the kinds of scorers: opens them, and checks them without weights.

transformers' models take seconds to import: who needs none of them does not wait.
"""

import torch

from models.blip.config import DtypeChoice
from models.checkpoints import locate
from models.checkpoints.local_folder import CONFIG
from models.guests.folder import read_settings
from models.scorers import blip
from models.scorers.config import BlipScorerConfig, DualEncoderConfig
from models.scorers.scorer import Scorer, ScorerInfo


def as_section(model: str) -> dict[str, str]:
    """Write the section of a recipe for a folder or hub id, by what it says of its family."""
    folder = locate.find_here(model) or locate.download(model, None, [CONFIG])
    family = read_settings(folder, CONFIG).get("model_type")
    return {"kind": "blip" if family in (None, "blip") else "dual_encoder", "model": model}


def open_scorer(
    config: BlipScorerConfig | DualEncoderConfig,
    *,
    dtype: DtypeChoice = "auto",
    device: str | torch.device = "cpu",
) -> Scorer:
    """Load a scorer of any kind; CheckpointError says what is wrong with it."""
    if isinstance(config, BlipScorerConfig):
        return blip.BlipScorer.load(config, dtype=dtype, device=device)
    from models.scorers import dual_encoder

    return dual_encoder.DualEncoder(config, dtype=dtype, device=device)


def check_scorer(config: BlipScorerConfig | DualEncoderConfig) -> ScorerInfo:
    """Check a scorer of any kind without its weights in memory; CheckpointError for a bad one."""
    if isinstance(config, BlipScorerConfig):
        return blip.check(config)
    from models.scorers import dual_encoder

    return dual_encoder.check(config)
