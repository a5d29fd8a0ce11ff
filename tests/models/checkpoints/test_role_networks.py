"""Each role has one network, and a tensor that it shares has one name in files."""

import pytest
import torch
from transformers import BlipConfig

from models.blip.config import ARCHITECTURES, Role
from models.checkpoints.role_networks import NETWORKS, build, ties


def test_each_role_has_a_network_of_its_own() -> None:
    assert NETWORKS.keys() == ARCHITECTURES.keys()
    assert len(set(NETWORKS.values())) == len(ARCHITECTURES)


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
