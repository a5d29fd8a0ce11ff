"""The network of each role."""

from collections.abc import Mapping

from torch import Tensor, nn
from transformers import BlipConfig

from models.blip.config import Role
from models.blip.networks import CaptionNetwork, MatchNetwork, VqaNetwork
from models.blip.nlvr import NlvrNetwork
from models.blip.text import TextTransformer
from models.blip.vision import VisionTower
from models.training.pretraining import PretrainNetwork


class FeatureNetwork(nn.Module):
    """Vision tower and text encoder without a head: the original's feature extractor."""

    def __init__(self, config: BlipConfig) -> None:
        super().__init__()
        self.vision_model = VisionTower(config.vision_config)
        self.text_encoder = TextTransformer(config.text_config)

    def forward(self, ids: Tensor, mask: Tensor, images: Tensor | None = None) -> Tensor:
        """Read texts (N, T), grounded in image states (B, P, V) where given: (N, T, D)."""
        return self.text_encoder.encode(ids, mask, images)


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
    """Tell the role that a network was built for; TypeError for one that has no folder."""
    for role, kind in NETWORKS.items():
        if type(network) is kind:
            return role
    raise TypeError(f"{type(network).__name__} has no role of its own")


def ties(network: nn.Module) -> dict[str, str]:
    """Map second names of shared tensors, which its state dict leaves out, to their first ones."""
    return network.shared() if isinstance(network, PretrainNetwork) else {}
