"""Beam search against transformers and against the original, each under its own length rule."""

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
from models.decoding import beam
from models.decoding.config import Decoding
from models.decoding.draft import DecoderStart
from models.decoding.generate import GeneratedTexts, greedy


def whole(start: DecoderStart, text: GeneratedTexts) -> list[int]:
    """A text's ids with prompt and end token."""
    return start.prompt + text.ids + [start.end_id] * text.ended


def until_end(row: list[int], end_id: int) -> list[int]:
    return row[: row.index(end_id) + 1] if end_id in row else row


def beams(start: DecoderStart, width: int, most: int, least: int, penalty: float = 1.0) -> Decoding:
    """Translate lengths that count the prompt."""
    return Decoding(
        method="beam",
        beams=width,
        min_tokens=least - len(start.prompt),
        max_tokens=most - len(start.prompt),
        repetition_penalty=penalty,
    )


@torch.no_grad()
def test_ids_equal_transformers(
    caption_checkpoint: Checkpoint,
    hf_captioner: BlipForConditionalGeneration,
    hf_values: dict[str, Tensor],
    hf_facts: dict[str, Any],
    images: Tensor,
) -> None:
    limits = hf_facts["generate_args"]["caption"]
    network = caption_checkpoint.network_as(CaptionNetwork)
    described = caption_checkpoint.description
    stored = hf_values["out.caption_ids_beam3"]
    prompt = hf_values["in.caption_input_ids_dec"][0, :4].tolist()
    start = DecoderStart(prompt, described.tokenizer.sep_id, described.tokenizer.pad_id)
    inputs = described.preprocess.normalise(images[: len(stored)], torch.float32)
    decoding = beams(start, 3, limits["max_length"], limits["min_length"])
    states = network.vision_model(inputs)
    found = beam.beam_search(network.text_decoder, states, start, decoding, "generated")
    best = [whole(start, texts[0]) for texts in found]
    assert best == [until_end(row, start.end_id) for row in stored.tolist()]

    theirs = hf_captioner.generate(
        pixel_values=inputs,
        input_ids=torch.tensor([[*prompt, start.end_id]]).repeat(len(inputs), 1),
        num_beams=3,
        num_return_sequences=3,
        do_sample=False,
        max_length=limits["max_length"],
        min_length=limits["min_length"],
    ).tolist()
    ours = [whole(start, text) for texts in found for text in texts]
    assert ours == [until_end(row, start.end_id) for row in theirs]


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("beam3", "total"),
        ("beam3_min12_rep", "total"),
        ("beam3_generated_length_rule", "generated"),
    ],
)
@torch.no_grad()
def test_ids_equal_the_original(
    parity: Path,
    images: Tensor,
    original: Callable[[str, Role], nn.Module],
    normalise: Any,
    name: str,
    rule: Any,
) -> None:
    facts = json.loads((parity / "decoder.json").read_text())
    expected = load_file(parity / "decoder.safetensors")[f"out.ids_{name}"].tolist()
    words, arguments = facts["config"]["tokenizer"], facts["generate"]
    limits = arguments.get(name, arguments["beam3"])["args"]
    start = DecoderStart(facts["prompt_ids"], words["sep_id"], words["pad_id"])
    network = original("decoder", "captioner")
    assert isinstance(network, CaptionNetwork)
    states = network.vision_model(normalise(images[: len(expected)]))
    decoding = beams(
        start,
        limits["num_beams"],
        limits["max_length"],
        limits["min_length"],
        limits.get("repetition_penalty", 1.0),
    )
    found = beam.beam_search(network.text_decoder, states, start, decoding, rule)
    best = [whole(start, texts[0]) for texts in found]
    assert best == [until_end(row, start.end_id) for row in expected]


@torch.no_grad()
def test_the_two_length_rules_differ(
    parity: Path, images: Tensor, original: Callable[[str, Role], nn.Module], normalise: Any
) -> None:
    """For some number of beams: for which ones depends on the weights."""
    facts = json.loads((parity / "decoder.json").read_text())
    start = DecoderStart(facts["prompt_ids"], facts["config"]["tokenizer"]["sep_id"], 0)
    network: Any = original("decoder", "captioner")
    states = network.vision_model(normalise(images))

    def written(rule: Any, width: int, most: int) -> list[list[int]]:
        decoding = beams(start, width, most, 6)
        searched = beam.beam_search(network.text_decoder, states, start, decoding, rule)
        return [texts[0].ids for texts in searched]

    tried = [(width, most) for width in (3, 4, 6) for most in (20, 30)]
    assert any(written("generated", *one) != written("total", *one) for one in tried)


@torch.no_grad()
def test_one_beam_is_greedy(caption_checkpoint: Checkpoint, images: Tensor) -> None:
    network = caption_checkpoint.network_as(CaptionNetwork)
    described = caption_checkpoint.description
    start = DecoderStart([described.tokenizer.dec_id], described.tokenizer.sep_id, 0)
    states = network.vision_model(described.preprocess.normalise(images, torch.float32))
    decoding = Decoding(method="beam", beams=1, min_tokens=3, max_tokens=9)
    found = beam.beam_search(network.text_decoder, states, start, decoding, "generated")
    expected = greedy(network.text_decoder, states, start, decoding)
    assert [texts[0].ids for texts in found] == [text.ids for text in expected]
    for texts, text in zip(found, expected, strict=True):
        assert texts[0].logprob == pytest.approx(text.logprob, abs=1e-5)


def test_a_finished_text_is_not_beaten_later() -> None:
    start = DecoderStart([9], end_id=1, pad_id=0)
    decoding = Decoding(method="beam", beams=1, min_tokens=0, max_tokens=5)
    search = beam.BeamSearch(decoding, "generated", start)
    ending = beam.BeamCandidate(score=-0.1, logprob=-0.1, beam=0, token=1)
    going = beam.BeamCandidate(score=-5.0, logprob=-5.0, beam=0, token=2)
    search.advance([ending, going], [[]])
    assert search.done
    late = beam.BeamCandidate(score=0.0, logprob=0.0, beam=0, token=1)
    search.advance([late, going], [[2]])
    assert [hypothesis.text.ids for hypothesis in search.finished] == [[]]


@pytest.mark.parametrize(("rule", "second"), [("generated", -6.0 / 2), ("total", -6.0 / 4)])
def test_a_search_goes_on_while_a_beam_can_still_win(rule: Any, second: float) -> None:
    start = DecoderStart([9, 8, 7], end_id=1, pad_id=0)
    decoding = Decoding(method="beam", beams=2, min_tokens=0, max_tokens=5)
    search = beam.BeamSearch(decoding, rule, start)
    rows = [(-1.0, 0, 1), (-1.5, 0, 2), (-2.0, 0, 3), (-9.0, 0, 4)]
    search.advance([beam.BeamCandidate(score, score, *place) for score, *place in rows], [[], []])
    rows = [(-1.6, 0, 5), (-6.0, 1, 1), (-7.0, 0, 6), (-9.0, 1, 4)]
    going = search.advance(
        [beam.BeamCandidate(score, score, *place) for score, *place in rows], [[2], [3]]
    )
    assert [candidate.token for candidate in going] == [5, 6]
    assert search.finished[1].score == pytest.approx(second)
    assert search.finished[1].text.ids == [3]
    was_done = search.done
    rows = [(-90.0, 0, 5), (-91.0, 1, 1), (-92.0, 0, 6), (-93.0, 1, 4)]
    search.advance(
        [beam.BeamCandidate(score, score, *place) for score, *place in rows], [[2, 5]] * 2
    )
    assert (was_done, search.done) == (False, True)
    assert [hypothesis.text.ids for hypothesis in search.finished] == [[], [3]]
