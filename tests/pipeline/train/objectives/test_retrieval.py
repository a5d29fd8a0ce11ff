"""A filter in finetuning: where it starts, what its losses read, and who loads it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import (
    BlipForImageTextRetrieval,
)

from models.blip.config import Settings
from models.blip.tokenizer import WordPiece
from models.checkpoints import checkpoint
from models.checkpoints.conversion import import_folder
from models.roles.filter import Filter
from models.training.contrast import ContrastNetwork
from pipeline.train.dataloader import Batch
from pipeline.train.finetune import start_finetuning
from tests.support.small_finetuning import (
    PAIRS,
    config_of,
    create,
    learn,
    losses_of,
)


@pytest.mark.parametrize("task", ["filter", "retrieval"])
def test_a_filter_loads_elsewhere(
    pretrained: Path, pairs: Batch, tmp_path: Path, task: str, words: WordPiece
) -> None:
    objective = start_finetuning(config_of(task, pretrained))
    learn(objective, pairs)
    written = objective.export(tmp_path)
    assert written.keys() == {"filter"}
    theirs, told = BlipForImageTextRetrieval.from_pretrained(
        written["filter"], output_loading_info=True
    )
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    first = pairs.ids.clone()
    first[:, 0] = words.enc_id
    network, pixels = objective.network.eval(), objective.normalise(pairs.pixels)
    assert isinstance(network, ContrastNetwork)
    with torch.no_grad():
        ours = network.match_logits(first, pairs.mask, network.vision_model(pixels), None)
        expected = theirs.eval()(first, pixels, attention_mask=pairs.mask.long()).itm_score
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    assert Filter.load(written["filter"], dtype="fp32").digest == (
        checkpoint.info(written["filter"]).digest
    )


@pytest.mark.parametrize("task", ["filter", "joint"])
def test_copies_and_temperature_of_pretraining_go_on(pretrained: Path, task: str) -> None:
    objective = start_finetuning(config_of(task, pretrained))
    whole, state = import_folder(pretrained).content.tensors, objective.network.state_dict()
    assert state["temp"] == pytest.approx(0.03)
    names = [name for name in state if "_m." in name]
    assert len(names) > 40
    for name in names:
        assert torch.equal(state[name], whole[name]), name


def test_a_filter_without_copies_starts_them(words: WordPiece, tmp_path: Path) -> None:
    objective = start_finetuning(config_of("filter", create(tmp_path / "filter", "filter", words)))
    network = objective.network
    assert isinstance(network, ContrastNetwork)
    assert network.temp.item() == pytest.approx(0.07)
    for module, copied in network.copies():
        for leader, follower in zip(module.parameters(), copied.parameters(), strict=True):
            assert torch.equal(leader, follower)


def test_itm_reads_the_first_token_that_the_filter_will_get(
    pairs: Batch, words: WordPiece, tmp_path: Path
) -> None:
    """A filter in transformers' way reads [CLS]; trained with [ENC] it would be useless."""
    for settings, expected in (
        (Settings(itm_first_token="cls"), words.cls_id),
        (Settings(itm_first_token="enc"), words.enc_id),
    ):
        token = settings.itm_first_token
        start = create(tmp_path / f"{token}-start", "filter", words, settings)
        objective = start_finetuning(config_of("filter", start))
        assert objective.first_token == expected
        assert losses_of(objective, pairs)["itm"].isfinite()
        written = objective.export(tmp_path / token)["filter"]
        assert checkpoint.info(written).itm_first_token == token


def test_equal_texts_of_other_images_are_no_negatives(pretrained: Path, pairs: Batch) -> None:
    """With one text for all pairs nothing is wrong, so ITM has the matches alone."""
    objective = start_finetuning(config_of("filter", pretrained))
    network, pixels = objective.network, objective.normalise(pairs.pixels)
    assert isinstance(network, ContrastNetwork)
    alike = replace(
        pairs,
        ids=pairs.ids[:1].expand(PAIRS, -1),
        text_hashes=torch.zeros(PAIRS, dtype=torch.long),
    )
    itm = losses_of(objective, alike)["itm"]
    first = alike.ids.clone()
    first[:, 0] = objective.first_token
    logits = network.match_logits(first, alike.mask, network.vision_model(pixels), None)
    torch.testing.assert_close(itm, -logits.log_softmax(1)[:, 1].mean(), atol=1e-5, rtol=1e-5)
