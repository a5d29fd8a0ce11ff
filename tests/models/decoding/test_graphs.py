"""Recorded steps write the texts that steps run one by one do.

A CUDA graph is played here by its nearest kin on a CPU: the operations that torch saw while the
step was recorded, on the very tensors that it saw. Python runs no more: a number that it held, or a
tensor that another batch replaced, would show.
"""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from transformers import BlipConfig

from models.blip.text import TextDecoder
from models.decoding.config import Decoding
from models.decoding.draft import DecoderStart, Rules
from models.decoding.generate import Eager, GeneratedTexts, bucket, write_texts
from models.decoding.graphs import CudaRecorder, Graphs, Play, RecordingError
from models.decoding.sampling import text_seeds

START = DecoderStart([49, 7, 8], 2, 0)


def record(step: Play, reset: Play) -> Play:
    """Record on the CPU."""
    reset()
    traced = make_fx(lambda: step())()
    return lambda: traced()


@pytest.fixture(scope="module")
def decoder(config: BlipConfig) -> TextDecoder:
    torch.manual_seed(1)
    small = copy.deepcopy(config.text_config)
    small.num_hidden_layers = 2
    network = TextDecoder(small).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if "LayerNorm" not in name:
            torch.nn.init.normal_(parameter, std=0.08)
    network.cls.predictions.bias[START.end_id] += 1.5  # so that texts end at different steps
    network.bert.lay_together()
    return network


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def states(images: int, places: int = 5) -> Tensor:
    return torch.randn(images, places, 128, generator=torch.Generator().manual_seed(images))


def seeds_of(images: int, copies: int, decoding: Decoding) -> list[int] | None:
    if decoding.method == "greedy":
        return None
    return text_seeds(0, [str(n) for n in range(images)], copies)


def same(found: list[GeneratedTexts], expected: list[GeneratedTexts]) -> bool:
    assert [text.ids for text in found] == [text.ids for text in expected]
    assert [text.ended for text in found] == [text.ended for text in expected]
    logprobs = [text.logprob for text in expected]
    return [text.logprob for text in found] == pytest.approx(logprobs, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(max_tokens=12, min_tokens=2, repetition_penalty=1.3),
        pytest.param(
            Decoding(max_tokens=12, min_tokens=0, top_k=6, top_p=0.4), marks=pytest.mark.nightly
        ),
        Decoding(max_tokens=1, min_tokens=1),
        pytest.param(
            Decoding(max_tokens=12, min_tokens=1, method="greedy", repetition_penalty=1.5),
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_recorded_steps_write_what_single_steps_do(
    decoder: TextDecoder, decoding: Decoding
) -> None:
    copies = 1 if decoding.method == "greedy" else 2
    graphs, eager = Graphs(decoder, START, decoding, record), Eager(decoder, Rules(START, decoding))
    for images in (2, 3, 1):  # another room, tails that are padded, one image alone
        seeds = seeds_of(images, copies, decoding)
        expected = write_texts(eager, states(images), seeds)
        assert same(write_texts(graphs, states(images), seeds), expected)


def test_all_batches_use_the_room_of_the_largest(decoder: TextDecoder) -> None:
    made = []

    def counted(step: Play, reset: Play) -> Play:
        made.append(1)
        return record(step, reset)

    decoding = Decoding(max_tokens=4, min_tokens=2)
    graphs = Graphs(decoder, START, decoding, counted)
    rooms = []
    for images in (4, 3, 1, 4):
        write_texts(graphs, states(images), seeds_of(images, 1, decoding))
        assert graphs._room is not None
        rooms.append(graphs._room.cache.images.data_ptr())
    assert len(set(rooms)) == 1
    assert len(made) == 3  # for 4, 2 and 1 images


def test_a_word_that_the_rounds_did_not_find_is_drawn_after_all(decoder: TextDecoder) -> None:
    decoding = Decoding(max_tokens=8, min_tokens=2, top_p=0.3)
    seeds = seeds_of(4, 2, decoding)
    graphs = Graphs(decoder, START, decoding, record)
    graphs.rules = Rules(START, decoding, rounds=1)
    expected = write_texts(Eager(decoder, Rules(START, decoding)), states(4), seeds)
    draft = graphs.make(states(4), 2)
    assert same(write_texts(graphs, states(4), seeds), expected)
    assert draft.unsettled.any()


def test_the_host_looks_every_fourth_step_at_most(
    decoder: TextDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    tolist = Tensor.tolist

    def counted(tensor: Tensor) -> Any:
        looks.append(1)
        return tolist(tensor)

    monkeypatch.setattr(Tensor, "tolist", counted)
    decoding = Decoding(max_tokens=21, min_tokens=20)
    graphs = Graphs(decoder, START, decoding, record)
    write_texts(graphs, states(4), seeds_of(4, 1, decoding))
    assert len(looks) == 2  # ids and totals at the end; none can end before
    looks.clear()
    decoding = Decoding(max_tokens=21, min_tokens=0)
    eager = Eager(decoder, Rules(START, decoding), look_every=4)
    write_texts(eager, states(1), seeds_of(1, 1, decoding))
    assert len(looks) <= 5 + 2


def test_what_cannot_be_recorded_is_told(decoder: TextDecoder) -> None:
    def broken(*_: Play) -> Play:
        raise RuntimeError("operation not permitted when stream is capturing")

    graphs = Graphs(decoder, START, Decoding(max_tokens=4, min_tokens=1), broken)
    with pytest.raises(RecordingError, match="not permitted"):
        graphs.make(states(2), 1)
    assert graphs._room is None


def test_buckets_are_powers_of_two() -> None:
    assert [bucket(count) for count in (1, 2, 3, 4, 5, 8, 9, 200)] == [1, 2, 4, 4, 8, 8, 16, 256]


@pytest.mark.gpu
def test_cuda_graphs_write_what_single_steps_do(decoder: TextDecoder) -> None:
    network = decoder.cuda()
    decoding = Decoding(max_tokens=12, min_tokens=2, repetition_penalty=1.3)
    graphs = Graphs(network, START, decoding, CudaRecorder())
    for images in (5, 3, 8):
        seeds = seeds_of(images, 2, decoding)
        expected = write_texts(Eager(network, Rules(START, decoding)), states(images).cuda(), seeds)
        assert same(write_texts(graphs, states(images).cuda(), seeds), expected)
