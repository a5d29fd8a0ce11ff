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


def role_of(network: nn.Module) -> Role:
    """Return the role that a network was built for; TypeError for one that has no folder."""
    for role, kind in NETWORKS.items():
        if type(network) is kind:
            return role
    raise TypeError(f"{type(network).__name__} has no role of its own")


def ties(network: nn.Module) -> dict[str, str]:
    """Map second names of shared tensors, which its state dict leaves out, to their first ones."""
    return network.shared() if isinstance(network, PretrainNetwork) else {}
