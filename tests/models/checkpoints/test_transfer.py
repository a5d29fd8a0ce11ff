"""What networks for questions and pairs take over from pre-training, and what is new in them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from models.blip.config import ORIGINAL, blip_config
from models.blip.networks import VqaNetwork
from models.blip.nlvr import NlvrNetwork
from models.blip.tokenizer import WordPiece
from models.checkpoints import checkpoint
from models.checkpoints.conversion import import_folder
from models.checkpoints.folder import CheckpointContent
from models.checkpoints.locate import CheckpointError
from models.checkpoints.role_networks import build
from models.checkpoints.transfer import transfer
from models.training.pretraining import PretrainNetwork


@pytest.fixture(scope="module")
def create(
    tmp_path_factory: pytest.TempPathFactory, words: WordPiece
) -> Callable[..., CheckpointContent]:
    """Make a random pre-trained network, with the given settings of its vision tower."""

    def make(role: Any = "pretrain", layers: int = 2, **vision: int) -> CheckpointContent:
        path = tmp_path_factory.mktemp("start") / "start"
        config = blip_config("tiny", **words.config_fields, image_size=16)
        config.text_config.num_hidden_layers = layers
        for name, value in vision.items():
            setattr(config.vision_config, name, value)
        config.text_config.encoder_hidden_size = config.vision_config.hidden_size
        checkpoint.create(path, role, config, words, seed=5, settings=ORIGINAL)
        return import_folder(path).content

    return make


def loaded(content: CheckpointContent) -> torch.nn.Module:
    network = build(content.role, content.config).eval()
    network.load_state_dict(dict(content.tensors))
    return network


def test_an_answering_network_reads_and_writes_as_the_pretrained_one(
    create: Callable[..., CheckpointContent],
) -> None:
    whole = create()
    old, new = loaded(whole), loaded(transfer(whole, "vqa", 1))
    assert isinstance(old, PretrainNetwork)
    assert isinstance(new, VqaNetwork)
    ids, mask = torch.randint(5, 60, (2, 4)), torch.ones(2, 4, dtype=torch.bool)
    with torch.no_grad():
        states = old.vision_model(torch.randn(2, 3, 16, 16))
        torch.testing.assert_close(
            new.questions(ids, mask, states), old.text_encoder.encode(ids, mask, states)
        )
        written, expected = (
            n.text_decoder.extend(ids, n.text_decoder.bert.open_cache(states, 4))
            for n in (new, old)
        )
        torch.testing.assert_close(written, expected)


def test_a_pair_of_equal_pictures_is_looked_at_as_one(
    create: Callable[..., CheckpointContent],
) -> None:
    """In layers that average what two pictures bring, two equal ones bring what one brought."""
    whole = create()
    old, new = loaded(whole), loaded(transfer(whole, "nlvr", 1))
    assert isinstance(old, PretrainNetwork)
    assert isinstance(new, NlvrNetwork)
    ids, mask = torch.randint(5, 60, (2, 4)), torch.ones(2, 4, dtype=torch.bool)
    with torch.no_grad():
        states = old.vision_model(torch.randn(2, 3, 16, 16))
        found = new.text_encoder.encode(ids, mask, states, states)
        torch.testing.assert_close(found, old.text_encoder.encode(ids, mask, states))


def test_what_is_new_is_random_by_its_seed(create: Callable[..., CheckpointContent]) -> None:
    whole = create(layers=7)  # layer 6 is the first that joins two pictures by a linear layer
    one, again, other = (transfer(whole, "nlvr", seed).tensors for seed in (1, 1, 2))
    differing = {name for name in one if not torch.equal(one[name], other[name])}
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert {name.partition(".")[0] for name in differing} == {"cls_head", "text_encoder"}
    of_text = {name for name in differing if name.startswith("text_encoder")}
    assert of_text == {"text_encoder.encoder.layer.6.crossattention.output.merge_layer.weight"}


def test_where_widths_differ_the_decoders_look_is_new(
    create: Callable[..., CheckpointContent],
) -> None:
    whole = create(hidden_size=64)
    tensors = transfer(whole, "vqa", 1).tensors
    width = whole.config.text_config.hidden_size
    name = "text_decoder.bert.encoder.layer.0.crossattention.self.key.weight"
    assert tensors[name].shape == (width, width)
    assert tensors[name.replace("text_decoder.bert", "text_encoder")].shape == (width, 64)


def test_only_pretraining_can_become_another_role(create: Callable[..., CheckpointContent]) -> None:
    with pytest.raises(CheckpointError, match=r"starts from a pretrain folder.*found captioner"):
        transfer(create("captioner"), "vqa", 1)
