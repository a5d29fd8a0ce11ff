"""Greedy and nucleus decoding against transformers, the original, and slow obvious loops."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BlipForConditionalGeneration

from models.blip.config import Role
from models.blip.networks import CaptionNetwork
from models.checkpoints.checkpoint import Checkpoint
from models.decoding import sampling
from models.decoding.config import Decoding
from models.decoding.draft import DecoderStart, constrain
from models.decoding.generate import greedy, nucleus
from models.decoding.sampling import text_seeds


@pytest.fixture(scope="module")
def start(caption_checkpoint: Checkpoint, hf_values: dict[str, Tensor]) -> DecoderStart:
    words = caption_checkpoint.description.tokenizer
    return DecoderStart(
        hf_values["in.caption_input_ids_dec"][0, :4].tolist(), words.sep_id, words.pad_id
    )


@pytest.fixture(scope="module")
def states(caption_checkpoint: Checkpoint, images: Tensor) -> Tensor:
    inputs = caption_checkpoint.description.preprocess.normalise(images, torch.float32)
    with torch.no_grad():
        return caption_checkpoint.network_as(CaptionNetwork).vision_model(inputs)


@torch.no_grad()
def test_greedy_ids_equal_transformers(
    caption_checkpoint: Checkpoint,
    hf_values: dict[str, Tensor],
    hf_facts: dict[str, Any],
    states: Tensor,
    start: DecoderStart,
) -> None:
    limits = hf_facts["generate_args"]["caption"]
    expected = hf_values["out.caption_ids_greedy"]
    decoding = Decoding(
        method="greedy",
        min_tokens=limits["min_length"] - len(start.prompt),
        max_tokens=limits["max_length"] - len(start.prompt),
    )
    decoder = caption_checkpoint.network_as(CaptionNetwork).text_decoder
    for row, text in zip(
        expected.tolist(), greedy(decoder, states[: len(expected)], start, decoding), strict=True
    ):
        ids = start.prompt + text.ids + [start.end_id] * text.ended
        assert ids + [start.pad_id] * (len(row) - len(ids)) == row


@pytest.mark.parametrize("name", ["greedy", "greedy_min10"])
@torch.no_grad()
def test_greedy_ids_equal_the_original(
    parity: Path,
    images: Tensor,
    original: Callable[[str, Role], nn.Module],
    normalise: Any,
    name: str,
) -> None:
    facts = json.loads((parity / "decoder.json").read_text())
    expected = load_file(parity / "decoder.safetensors")[f"out.ids_{name}"].tolist()
    words, limits = facts["config"]["tokenizer"], facts["generate"][name]["args"]
    first = DecoderStart(facts["prompt_ids"], words["sep_id"], words["pad_id"])
    network = original("decoder", "captioner")
    assert isinstance(network, CaptionNetwork)
    decoding = Decoding(
        method="greedy",
        min_tokens=limits["min_length"] - len(first.prompt),
        max_tokens=limits["max_length"] - len(first.prompt),
    )
    found = greedy(
        network.text_decoder,
        network.vision_model(normalise(images[: len(expected)])),
        first,
        decoding,
    )
    for row, text in zip(expected, found, strict=True):
        ids = first.prompt + text.ids + [first.end_id] * text.ended
        assert ids + [first.pad_id] * (len(row) - len(ids)) == row


@pytest.mark.parametrize("top_k", [0, 50])
@torch.no_grad()
def test_step_distribution_equals_the_original(parity: Path, top_k: int) -> None:
    facts = json.loads((parity / "decoder.json").read_text())
    values = load_file(parity / "decoder.safetensors")
    suffix = "notopk" if top_k == 0 else f"topk{top_k}"
    name = f"nucleus_step_probs_{suffix}_top_p09_rep11_min10"
    prefix = values["in.nucleus_sequences"][:, :8]
    prompt, end_id = facts["prompt_ids"], facts["config"]["tokenizer"]["sep_id"]
    decoding = Decoding(top_p=0.9, top_k=top_k, repetition_penalty=1.1, min_tokens=10 - len(prompt))
    logits = values["out.nucleus_step_raw_logits"]
    step = prefix.shape[1] - len(prompt)
    scores = constrain(logits, prefix, step, end_id, decoding)
    found = nucleus_probabilities(scores, decoding)
    atol = facts["tolerance"][name]["atol"]
    torch.testing.assert_close(found, values[f"out.{name}"], atol=atol, rtol=1e-5)


def nucleus_probabilities(scores: Tensor, decoding: Decoding) -> Tensor:
    """Find which words can be drawn by letting each be the fastest, and share the mass out."""
    probabilities = sampling.keep_top(scores, decoding.top_k).softmax(-1)
    reached = torch.zeros_like(probabilities)
    for word in range(scores.shape[-1]):
        race = torch.ones_like(probabilities, dtype=torch.float64)
        race[:, word] = 1e-300
        picked, _ = sampling.nucleus(probabilities, race, decoding.top_p)
        reached[:, word] = (picked == word).float()
    kept = probabilities * reached
    return kept / kept.sum(-1, keepdim=True)


@torch.no_grad()
def test_cached_steps_equal_reading_the_whole_text_again(
    caption_checkpoint: Checkpoint,
    hf_captioner: BlipForConditionalGeneration,
    states: Tensor,
    start: DecoderStart,
) -> None:
    """The slow oracle: transformers reads prompt and text again for every token, one by one."""
    decoding = Decoding(min_tokens=4, max_tokens=9, top_p=0.8)
    seeds = text_seeds(1, [str(number) for number in range(len(states))], 2)
    decoder = caption_checkpoint.network_as(CaptionNetwork).text_decoder
    texts = nucleus(decoder, states, start, decoding, seeds)
    assert len(texts) == 2 * len(states)
    for number, text in enumerate(texts):
        ids = start.prompt + text.ids + [start.end_id] * text.ended
        image = states[number // 2][None]
        theirs = hf_captioner.text_decoder(torch.tensor([ids]), encoder_hidden_states=image).logits
        steps = theirs[0].log_softmax(-1)[len(start.prompt) - 1 : -1]
        generated = torch.tensor(ids[len(start.prompt) :])
        expected = steps.gather(-1, generated[:, None]).mean().item()
        assert text.logprob == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("method", [greedy, nucleus])
@torch.no_grad()
def test_lengths_keep_their_bounds(
    caption_checkpoint: Checkpoint, states: Tensor, start: DecoderStart, method: Any
) -> None:
    decoder = caption_checkpoint.network_as(CaptionNetwork).text_decoder
    decoding = Decoding(min_tokens=3, max_tokens=6, top_p=1.0)
    seeds = () if method is greedy else (text_seeds(0, [str(n) for n in range(len(states))], 5),)
    texts = method(decoder, states, start, decoding, *seeds)
    lengths = {len(text.ids) for text in texts}
    assert min(lengths) >= 3
    assert max(lengths) <= 6
    assert all(text.ended == (len(text.ids) < 6) for text in texts)
    assert not any(start.end_id in text.ids for text in texts)


def test_penalty_lowers_what_was_said_whatever_its_sign() -> None:
    scores = torch.tensor([[2.0, -2.0, 1.0, 0.5]])
    decoding = Decoding(repetition_penalty=2.0, min_tokens=1)
    found = constrain(scores, torch.tensor([[0, 1, 0]]), 0, 3, decoding)
    assert found.tolist() == [[1.0, -4.0, 1.0, float("-inf")]]
    assert scores.tolist() == [[2.0, -2.0, 1.0, 0.5]]
