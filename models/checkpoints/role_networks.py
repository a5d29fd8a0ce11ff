"""Which network each role is, and what it is built from."""

from collections.abc import Mapping

from torch import nn
from transformers import BlipConfig

from models.blip.config import Role
from models.blip.networks import CaptionNetwork, FeatureNetwork, MatchNetwork, VqaNetwork
from models.blip.nlvr import NlvrNetwork
from models.training.pretraining import PretrainNetwork

NETWORKS: Mapping[Role, type[nn.Module]] = {
    "captioner": CaptionNetwork,
    "filter": MatchNetwork,
    "vqa": VqaNetwork,
    "nlvr": NlvrNetwork,
    "features": FeatureNetwork,
    "pretrain": PretrainNetwork,
}


def build(role: Role, config: BlipConfig) -> nn.Module:
    """Make the network of a role, its weights not yet set."""
    return NETWORKS[role](config)


def ties(network: nn.Module) -> dict[str, str]:
    """Map second names of shared tensors, which its state dict leaves out, to their first ones."""
    return network.shared() if isinstance(network, PretrainNetwork) else {}
