"""How `generate` is told to decode, and what is read of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from models.captioners.config import TransformersCaptionerConfig
from models.captioners.generation import Draw, Draws, end_ids, for_count, forget_folder, plan
from models.checkpoints.locate import CheckpointError
from models.decoding import sampling
from tests.support.tiny_guests import words

SHORT = GenerationConfig(max_new_tokens=4)

NETWORK = GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1, n_positions=64)


def planned(folder: Path, wishes: dict[str, Any], **settings: Any) -> Any:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7], **wishes}))
    config = TransformersCaptionerConfig(kind="transformers", model="m", **settings)
    return plan(config, folder, NETWORK)


def test_of_the_folder_only_its_tokens_are_kept(tmp_path: Path) -> None:
    wishes = {"repetition_penalty": 5.0, "num_beams": 4, "forced_bos_token_id": 3, "min_length": 5}
    settings = planned(tmp_path, wishes, method="greedy").settings
    assert settings.eos_token_id == [2, 7]
    assert (settings.repetition_penalty, settings.num_beams) == (1.0, 1)
    assert (settings.forced_bos_token_id, settings.min_length) == (None, None)
    network = GPT2LMHeadModel(NETWORK)
    network.generation_config.repetition_penalty = 5.0
    forget_folder(network, settings)
    assert network.generation_config.repetition_penalty is None
    assert network.generation_config.eos_token_id == [2, 7]


def test_one_text_is_taken_and_several_are_drawn(tmp_path: Path) -> None:
    settings = planned(tmp_path, {}).settings
    assert not for_count(settings, 1).do_sample
    several = for_count(settings, 3)
    assert (several.do_sample, several.num_return_sequences) == (True, 3)
    assert (several.temperature, several.top_k, several.top_p) == (1.0, 0, 1.0)
    assert not for_count(planned(tmp_path, {}, method="beam").settings, 3).do_sample


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"do_sample": True, "min_p": 0.1}, "asks for min_p"),
        ({"do_sample": True, "typical_p": 0.5}, "asks for typical_p"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "asks for penalty_alpha"),
        ({"num_beams": 1}, "candidates is 2, but .* has greedy decoding"),
    ],
)
def test_wishes_of_a_folder_that_are_not_met_are_told(
    wishes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=said):
        planned(tmp_path, wishes, generation="folder", candidates=2)
    planned(tmp_path, wishes, candidates=2)  # the recipe says how: nobody asks the folder


def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be used"):
        plan(TransformersCaptionerConfig(kind="transformers", model="m"), tmp_path, NETWORK)


def test_a_text_ends_at_any_token_that_ends_one(tmp_path: Path) -> None:
    settings = planned(tmp_path, {}).settings
    tokenizer = words()
    assert end_ids(settings, tokenizer) == {2, 7}
    settings.eos_token_id = 5
    assert end_ids(settings, tokenizer) == {5, tokenizer.eos_token_id}


def test_draws_have_the_shares_that_the_model_gives() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    seeds = sampling.text_seeds(0, [str(number) for number in range(20_000)], 1)
    streams = sampling.step_streams(seeds, 1)
    scores = probabilities.log().expand(len(seeds), -1)
    drawn = Draw(True, top_p=0.9).pick(scores, streams)
    shares = torch.bincount(drawn, minlength=4) / len(seeds)
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.15, 0]) / 0.95, atol=0.01, rtol=0)
    cold = torch.bincount(Draw(True, temperature=0.5).pick(scores, streams), minlength=4)
    torch.testing.assert_close(
        cold / len(seeds), probabilities**2 / (probabilities**2).sum(), atol=0.01, rtol=0
    )
    assert set(Draw(True, top_k=2).pick(scores, streams).tolist()) == {0, 1}


def test_tokens_behind_an_end_count_for_nothing() -> None:
    draws = Draws(Draw(sampled=False), [0, 1], SHORT)
    scores = torch.log_softmax(torch.tensor([[1.0, 2.0, 0.5], [0.1, 0.0, 3.0]]), -1)
    prompt = torch.zeros(2, 5, dtype=torch.long)
    for step in range(3):
        left = draws(torch.cat([prompt, prompt[:, :step]], -1), scores)
        assert left.isfinite().sum(-1).tolist() == [1, 1]
        assert left.argmax(-1).tolist() == [1, 2]
    assert draws.begin == 5
    assert draws.logprobs([1, 3]) == pytest.approx([scores[0, 1].item(), scores[1, 2].item()])
    assert Draws(None, [], SHORT).logprobs([4]) == [None]
