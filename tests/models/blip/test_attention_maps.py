"""Attention maps: the original's probabilities and Grad-CAM, and a slow loop."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.blip import attention_maps as attention
from models.blip.config import Role

Original = Callable[[str, Role], nn.Module]
Reference = Callable[[str], tuple[dict[str, Tensor], dict[str, float]]]

LAYER = 1


@pytest.fixture(scope="module")
def matcher(original: Original) -> nn.Module:
    return original("itm", "filter").requires_grad_(False)


@pytest.fixture(scope="module")
def captioner(original: Original) -> nn.Module:
    return original("decoder", "captioner").requires_grad_(False)


def mean_over_words(maps: Tensor, mask: Tensor) -> Tensor:
    """Average maps (N, T, rows, columns) over all tokens but the first and [SEP].

    A text without any has an empty map.
    """
    lengths = mask.sum(-1)
    places = torch.arange(mask.shape[1], device=mask.device)
    inner = (places >= 1) & (places < (lengths - 1)[:, None])  # (N, T)
    total = (maps * inner[:, :, None, None]).sum(1)
    return total / (lengths - 2).clamp(min=1)[:, None, None]


@torch.inference_mode()
def test_maps_of_a_match_equal_the_original(
    matcher: Any, reference: Reference, images: Tensor, normalise: Any
) -> None:
    values, limits = reference("itm")
    ids, mask = values["in.input_ids_enc"], values["in.attention_mask"].bool()
    maps = attention.match_maps(
        matcher, ids, mask, matcher.vision_model(normalise(images[: len(ids)]))
    )
    rows, columns = values["out.gradcam_first_token"].shape[1:]
    cam = attention.original_cam(
        maps.probabilities[LAYER], maps.gradients[LAYER], mask, (rows, columns)
    )
    found = {
        "cross_attention_probs_layer1": maps.probabilities[LAYER],
        "cross_attention_grads_layer1": maps.gradients[LAYER],
        "gradcam_tokens": cam,
        "gradcam_first_token": cam[:, 0],
        "gradcam_mean_over_tokens": mean_over_words(cam, mask),
        "pair_itm_logits_enc": maps.scores,
    }
    for name, tensor in found.items():
        key = f"out.{name}"
        torch.testing.assert_close(tensor, values[key], atol=limits[key], rtol=1e-5)


@torch.no_grad()
def test_a_traced_text_equals_a_plain_one(
    matcher: Any, captioner: Any, reference: Reference, images: Tensor, normalise: Any
) -> None:
    values = reference("itm")[0]
    ids, mask = values["in.input_ids_enc"], values["in.attention_mask"].bool()
    states = matcher.vision_model(normalise(images[: len(ids)]))
    maps = attention.match_maps(matcher, ids, mask, states)
    plain = matcher.match_logits(ids, mask, states, None)
    torch.testing.assert_close(maps.scores, plain, atol=1e-4, rtol=1e-5)

    values = reference("decoder")[0]
    ids = values["in.input_ids"]
    pixels = normalise(images[: len(ids)])
    found = attention.caption_maps(captioner, ids, captioner.vision_model(pixels))
    logits = captioner(pixels, ids)[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1)
    torch.testing.assert_close(found.scores, logits, atol=1e-3, rtol=1e-5)
    for layer in (*maps.probabilities, *found.probabilities):
        torch.testing.assert_close(layer.sum(-1), torch.ones_like(layer[..., 0]))


def test_gradients_equal_small_differences(
    original: Original,
    reference: Reference,
    images: Tensor,
    normalise: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nudge one probability at a time, in fp64, and see how a score moves."""
    network: Any = original("decoder", "captioner").double().requires_grad_(False)
    ids = reference("decoder")[0]["in.input_ids"][:1, :6]
    states = network.vision_model(normalise(images[:1]).double())
    maps = attention.caption_maps(network, ids, states)
    step, layer, head = 3, 0, 1

    def scores(patch: int, nudge: float) -> Tensor:
        calls: list[int] = []
        softmax = Tensor.softmax

        def nudged(tensor: Tensor, *arguments: Any, **named: Any) -> Tensor:
            chances = softmax(tensor, *arguments, **named)
            if len(calls) == layer:
                chances[0, head, step, patch] += nudge
            calls.append(1)
            return chances

        with monkeypatch.context() as patched:
            patched.setattr(Tensor, "softmax", nudged)
            with torch.no_grad():
                causal = torch.ones(5, 5, dtype=torch.bool).tril()
                read = attention.trace(network.text_decoder.bert, ids[:, :-1], causal, states)
        return network.text_decoder.logits(read.hidden)[0, step, ids[0, step + 1]]

    for patch in (0, 3, 11):
        slope = (scores(patch, 1e-5) - scores(patch, -1e-5)) / 2e-5
        found = maps.gradients[layer][0, head, step, patch].item()
        assert found == pytest.approx(slope.item(), rel=1e-5)


def test_grad_cam_equals_a_slow_loop() -> None:
    torch.manual_seed(0)
    texts, heads, tokens, rows, columns = 3, 2, 5, 2, 3
    chances = torch.rand(texts, heads, tokens, 1 + rows * columns)
    gradients = torch.randn_like(chances)
    lengths = [5, 4, 2]
    mask = torch.arange(tokens) < torch.tensor(lengths)[:, None]
    cam = attention.original_cam(chances, gradients, mask, (rows, columns))
    by_head = attention.grad_cam(chances, gradients, mask, (rows, columns))
    plain = attention.attention_map(chances, mask, (rows, columns))
    mean = mean_over_words(cam, mask)
    for text in range(texts):
        for row in range(rows):
            for column in range(columns):
                place = 1 + row * columns + column
                total = 0.0
                for token in range(tokens):
                    value, look, headed = 0.0, 0.0, 0.0
                    for head in range(heads):
                        chance = chances[text, head, token, place].item()
                        raises = [max(g, 0) for g in gradients[text, head, token, 1:].tolist()]
                        headed += chance * sum(raises) / len(raises)
                        value += chance * max(gradients[text, head, token, place].item(), 0)
                        look += chance
                    inside = token < lengths[text]
                    expected = value / heads if inside else 0
                    assert cam[text, token, row, column].item() == pytest.approx(expected)
                    expected_head = headed / heads if inside else 0
                    assert by_head[text, token, row, column].item() == pytest.approx(expected_head)
                    expected_look = look / heads if inside else 0
                    assert plain[text, token, row, column].item() == pytest.approx(expected_look)
                    if 1 <= token <= lengths[text] - 2:
                        total += value / heads
                expected = total / max(lengths[text] - 2, 1)
                assert mean[text, row, column].item() == pytest.approx(expected)
    assert mean[2].abs().sum() == 0  # no words at all


@torch.no_grad()
def test_maps_do_not_depend_on_the_batch(
    matcher: Any, captioner: Any, reference: Reference, images: Tensor, normalise: Any
) -> None:
    values = reference("itm")[0]
    ids, mask = values["in.input_ids_enc"], values["in.attention_mask"].bool()
    states = matcher.vision_model(normalise(images[: len(ids)]))
    together = attention.match_maps(matcher, ids, mask, states)
    for row in range(len(ids)):
        length = int(mask[row].sum())
        one = slice(row, row + 1)
        alone = attention.match_maps(matcher, ids[one, :length], mask[one, :length], states[one])
        for name in ("probabilities", "gradients"):
            for whole, part in zip(getattr(together, name), getattr(alone, name), strict=True):
                torch.testing.assert_close(whole[one, :, :length], part, atol=1e-5, rtol=1e-4)

    ids = reference("decoder")[0]["in.input_ids"][:3]
    states = captioner.vision_model(normalise(images[:3]))
    whole = attention.caption_maps(captioner, ids, states)
    for row in range(3):
        one = slice(row, row + 1)
        part = attention.caption_maps(captioner, ids[one], states[one])
        for layer in range(len(part.gradients)):
            torch.testing.assert_close(
                whole.gradients[layer][one], part.gradients[layer], atol=1e-5, rtol=1e-4
            )


def test_a_token_is_not_explained_by_later_ones(
    captioner: Any, reference: Reference, images: Tensor, normalise: Any
) -> None:
    ids = reference("decoder")[0]["in.input_ids"][:1, :8]
    with torch.no_grad():
        states = captioner.vision_model(normalise(images[:1]))
    whole = attention.caption_maps(captioner, ids, states)
    part = attention.caption_maps(captioner, ids[:, :5], states)
    for name in ("probabilities", "gradients"):
        for long, short in zip(getattr(whole, name), getattr(part, name), strict=True):
            torch.testing.assert_close(long[:, :, :4], short, atol=1e-5, rtol=1e-4)


def test_pieces_of_a_word_are_averaged() -> None:
    maps = torch.arange(6.0).view(6, 1, 1)
    assert attention.over_pieces(maps, [1, 3, 2]).flatten().tolist() == [0, 2, 4.5]
