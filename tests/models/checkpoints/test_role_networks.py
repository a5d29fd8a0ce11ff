"""Each role has one network, and each network that is written has one role."""

import pytest
import torch
from transformers import BlipConfig

from models.blip.config import ARCHITECTURES, Role
from models.checkpoints.role_networks import build, role_of, ties
from models.training.finetuning import RetrievalNetwork


@pytest.mark.parametrize("role", ARCHITECTURES)
def test_a_network_tells_its_role(config: BlipConfig, role: Role) -> None:
    with torch.device("meta"):
        assert role_of(build(role, config)) == role


def test_a_network_of_training_alone_has_no_folder(config: BlipConfig) -> None:
    with torch.device("meta"), pytest.raises(TypeError, match="RetrievalNetwork has no role"):
        role_of(RetrievalNetwork(config))


@pytest.mark.parametrize("role", ARCHITECTURES)
def test_second_names_are_those_that_a_state_dict_leaves_out(
    config: BlipConfig, role: Role
) -> None:
    with torch.device("meta"):
        network = build(role, config)
    state, every = network.state_dict(), dict(network.named_parameters(remove_duplicate=False))
    tied = ties(network)
    assert set(tied) == set(every) - set(state)
    assert all(every[second] is every[first] for second, first in tied.items())
