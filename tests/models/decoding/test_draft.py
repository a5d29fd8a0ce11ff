"""Texts under way: what a step may ask of the host, and what moving them about changes."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BlipConfig

from models.blip.text import TextDecoder
from models.decoding.config import Decoding
from models.decoding.draft import DecoderStart, Draft, Rules, advance, choose
from models.decoding.sampling import step_streams, text_seeds

START = DecoderStart([49, 7, 8], 2, 0)
# what waits for the device, or has a size that only the device knows
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "_to_copy")


class Counting(TorchDispatchMode):
    """Counts the operations that reach torch."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.names.append(func.name().removeprefix("aten::").split(".")[0])
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def decoder(config: BlipConfig) -> TextDecoder:
    torch.manual_seed(1)
    network = TextDecoder(config.text_config).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if "LayerNorm" not in name:
            torch.nn.init.normal_(parameter, std=0.08)
    network.bert.lay_together()
    return network


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def begun(decoder: TextDecoder, states: Tensor, copies: int, rules: Rules) -> Draft:
    draft = Draft.make(decoder, states, copies, rules)
    seeds = text_seeds(0, [str(n) for n in range(len(states))], copies)
    draft.begin(START, len(states), step_streams(seeds, rules.decoding.max_tokens))
    choose(draft, draft.read_prompt(decoder, states, START), rules)
    return draft


RULES = {
    "nucleus": Rules(START, Decoding(max_tokens=9, min_tokens=3, repetition_penalty=1.2), 5),
    "top_k": Rules(START, Decoding(max_tokens=9, top_k=5), 5),
    "greedy": Rules(START, Decoding(max_tokens=9, method="greedy")),
}


@pytest.mark.parametrize("name", RULES)
def test_a_step_asks_nothing_of_the_host_and_keeps_its_places(
    decoder: TextDecoder, name: str
) -> None:
    rules = RULES[name]
    draft = begun(decoder, torch.randn(3, 5, 128), 2, rules)
    tensors = [*draft._texts(), draft.cache.texts, draft.cache.images, draft.cache.position]
    places = [(tensor.data_ptr(), tensor.shape) for tensor in tensors]
    counted = []
    for _ in range(3):
        with Counting() as step:
            advance(decoder, draft, rules)
        counted.append([op for op in step.names if op not in ("_to_copy", "lift_fresh")])
        assert not set(WAITS[:-1]) & set(step.names)
    assert counted[0] == counted[1] == counted[2]  # the same work, however far the texts are
    assert [(tensor.data_ptr(), tensor.shape) for tensor in tensors] == places
    products = sum(op in ("addmm", "mm", "linear") for op in counted[0])
    assert products == 4 * 6 + 2  # of a layer: q-k-v, out, query, out, in, out; then the head's


@pytest.mark.parametrize("copies", [1, 3])
def test_moved_texts_go_on_as_they_would_have(decoder: TextDecoder, copies: int) -> None:
    rules = RULES["nucleus"]
    states = torch.randn(5, 5, 128, generator=torch.Generator().manual_seed(3))
    still, moved = (begun(decoder, states, copies, rules) for _ in range(2))
    advance(decoder, still, rules)
    advance(decoder, moved, rules)
    moved.move([4, 3], [0, 2])
    moved = moved.first(3)
    for _ in range(4):
        advance(decoder, still, rules)
        advance(decoder, moved, rules)
    rows = [image * copies + n for image in (4, 1, 3) for n in range(copies)]
    assert torch.equal(moved.ids, still.ids[rows])
    assert torch.equal(moved.ended, still.ended[rows])
    torch.testing.assert_close(moved.total, still.total[rows], atol=1e-5, rtol=1e-5)


def test_a_draft_begun_anew_knows_nothing_of_the_last(decoder: TextDecoder) -> None:
    rules = RULES["nucleus"]
    draft = Draft.make(decoder, torch.randn(2, 5, 128), 1, rules)
    found = []
    states = torch.randn(2, 5, 128)
    for seen in (states, torch.full_like(states, torch.nan), states):
        draft.begin(START, 2, step_streams([1, 2], 9))
        choose(draft, draft.read_prompt(decoder, seen, START), rules)
        for _ in range(5):
            advance(decoder, draft, rules)
        found.append(draft.ids.clone())
    assert torch.equal(found[0], found[2])


def test_projecting_images_is_one_product_each_for_keys_and_values(decoder: TextDecoder) -> None:
    images = torch.randn(3, 5, 128)
    cache = decoder.bert.make_cache(images, 3, 4)
    with Counting() as counted:
        decoder.bert.see(images, cache)
    assert sum(op in ("addmm", "mm", "linear") for op in counted.names) == 2 * 4
    for (_, found), expected in zip(cache.layers, decoder.bert.project_images(images), strict=True):
        torch.testing.assert_close(found.key, expected.key, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.value, expected.value, atol=1e-5, rtol=1e-5)
