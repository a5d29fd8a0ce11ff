"""The filter: scores that depend on the image and the text alone."""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BlipForImageTextRetrieval

from models.blip.config import Role
from models.blip.text_layers import TextGroup
from models.blip.tokenizer import normalise
from models.roles.filter import LEAST_SAVED, Filter, slots_of, split_by_length

TEXTS = [
    ["a red dog", "two birds flying over the sea and the river near an old wooden house"],
    [],
    ["zebra"],
    ["a man riding a horse", "", "pizza on a table", "a dog " * 60, "a red dog"],
    [""],
    ["the woman is holding an umbrella"],
]


@pytest.fixture(scope="module")
def filter_(parity: Path) -> Filter:
    return Filter.load(parity / "hf/retrieval", dtype="fp32")


@torch.no_grad()
def test_scores_equal_transformers(
    filter_: Filter, hf_matcher: BlipForImageTextRetrieval, images: Tensor, hf_facts: dict[str, Any]
) -> None:
    texts = hf_facts["texts"]
    found = filter_.score(images, [texts] * len(images))
    pixels = filter_.preprocess.normalise(images, torch.float32)
    for text, column in zip(texts, zip(*found, strict=True), strict=True):
        words = filter_.tokenizer
        piece = words.encode([normalise(text)])[0][:33]
        ids = torch.tensor([[words.cls_id, *piece, words.sep_id]]).repeat(len(images), 1)
        itm = hf_matcher(ids, pixels, attention_mask=torch.ones_like(ids)).itm_score
        itc = hf_matcher(ids[:1], pixels, use_itm_head=False).itm_score[:, 0]
        for score, pair, cosine in zip(column, itm, itc, strict=True):
            assert score.itm == pytest.approx(pair.softmax(-1)[1].item(), abs=1e-5)
            assert score.itm_logit == pytest.approx((pair[1] - pair[0]).item(), abs=1e-4)
            assert score.itc == pytest.approx(cosine.item(), abs=1e-5)


def test_scores_do_not_depend_on_the_batch(filter_: Filter, images: Tensor) -> None:
    images = images[: len(TEXTS)]
    together = filter_.score(images, TEXTS)
    assert [len(row) for row in together] == [len(row) for row in TEXTS]
    backwards = filter_.score(images.flip(0), [row[::-1] for row in TEXTS[::-1]])
    for number, (row, texts) in enumerate(zip(together, TEXTS, strict=True)):
        turned = backwards[len(TEXTS) - 1 - number][::-1]
        for score, text, other in zip(row, texts, turned, strict=True):
            alone = filter_.score(images[number : number + 1], [[text]])[0][0]
            for found in (alone, other):
                assert found.itm == pytest.approx(score.itm, abs=1e-5)
                assert found.itm_logit == pytest.approx(score.itm_logit, abs=1e-4)
                assert found.itc == pytest.approx(score.itc, abs=1e-5)
                assert (found.tokens, found.truncated) == (score.tokens, score.truncated)


def test_another_image_or_text_gives_another_score(filter_: Filter, images: Tensor) -> None:
    (first, second), (third,) = filter_.score(images[:2], [["a red dog", "a cat"], ["a red dog"]])
    assert abs(first.itm_logit - second.itm_logit) > 1e-3
    assert abs(first.itm_logit - third.itm_logit) > 1e-3
    assert 0 <= first.itm <= 1
    assert -1 <= first.itc <= 1


def test_the_vision_tower_runs_once_per_image(parity: Path, images: Tensor) -> None:
    fresh = Filter.load(parity / "hf/retrieval", dtype="fp32")
    seen: list[int] = []
    tower = fresh.network.vision_model
    tower.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    fresh.score(images[: len(TEXTS)], TEXTS)
    assert seen == [len(TEXTS)]


def test_no_texts_at_all(filter_: Filter, images: Tensor) -> None:
    assert filter_.score(images[:2], [[], []]) == [[], []]
    assert filter_.score(images[:0], []) == []


def test_tokens_are_counted_before_the_cut(filter_: Filter, images: Tensor) -> None:
    short, exact, long = filter_.score(images[:1], [["a dog", "dog " * 33, "dog " * 34]])[0]
    assert (short.tokens, short.truncated) == (2, False)
    assert (exact.tokens, exact.truncated) == (33, False)
    assert (long.tokens, long.truncated) == (34, True)
    assert long.itm == pytest.approx(exact.itm, abs=1e-6)


def test_tokens_are_counted_without_a_picture_as_with_one(filter_: Filter, images: Tensor) -> None:
    texts = ["a dog", " A  DOG!! ", "dog " * 40, "...", "\u0301 \ufffd", "🙂", "é漢"]
    scores = filter_.score(images[:1], [texts])[0]
    assert [filter_.count_tokens(text) for text in texts] == [score.tokens for score in scores]
    assert filter_.count_tokens("...") == 0 < filter_.count_tokens("🙂")


def test_texts_are_normalised_first(filter_: Filter, images: Tensor) -> None:
    plain, odd = filter_.score(images[:1], [["a red dog", ' "A  RED dog!!!" ']])[0]
    assert plain.itm == pytest.approx(odd.itm, abs=1e-6)
    assert plain.tokens == odd.tokens


def test_a_long_text_costs_no_more_than_the_limit(filter_: Filter, images: Tensor) -> None:
    texts = ["x" * 10_000, "dog " * 2_500, "é漢😀\x00" * 2_500, "##" * 5_000]
    start = time.perf_counter()
    found = filter_.score(images[:1], [texts])[0]
    assert time.perf_counter() - start < 5
    assert all(score.itm == score.itm for score in found)
    assert found[1].tokens == 2_500


def test_the_first_token_is_a_setting(
    parity: Path, images: Tensor, tmp_path: Path, filter_: Filter
) -> None:
    folder = Path(shutil.copytree(parity / "hf/retrieval", tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    config["capfilt"] = {"itm_first_token": "enc"}
    (folder / "config.json").write_text(json.dumps(config))
    changed = Filter.load(folder, dtype="fp32")
    old = filter_.score(images[:1], [["a red dog"]])[0][0]
    new = changed.score(images[:1], [["a red dog"]])[0][0]
    assert abs(old.itm_logit - new.itm_logit) > 1e-4
    assert old.itc == pytest.approx(new.itc, abs=1e-6)
    assert changed.digest != filter_.digest


def test_a_limit_that_does_not_fit_is_refused(parity: Path) -> None:
    stored = json.loads((parity / "hf/retrieval/config.json").read_text())["text_config"]
    most = stored["max_position_embeddings"]
    for limit in (1, most + 1):
        with pytest.raises(ValueError, match=f"takes 2 to {most}"):
            Filter.load(parity / "hf/retrieval", max_tokens=limit, dtype="fp32")


def test_bf16_is_close(folders: dict[Role, Path]) -> None:
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    texts = [["a red ring"], ["a blue star", "two dogs"], ["house"]]
    exact, rough = (
        Filter.load(folders["filter"], dtype=dtype).score(images, texts)
        for dtype in ("fp32", "bf16")
    )
    for row, other in zip(exact, rough, strict=True):
        for first, second in zip(row, other, strict=True):
            assert second.itm == pytest.approx(first.itm, abs=0.02)
            assert second.itc == pytest.approx(first.itc, abs=0.03)


@pytest.mark.parametrize(
    ("lengths", "parts"),
    [
        ([5, 9, 7], [[0, 1, 2]]),  # all are short
        ([35, 9], [[0, 1]]),  # 23 pads are not worth another reading
        ([35, 9, 9, 35, 9], [[1, 2, 4], [0, 3]]),
        ([35, 20, 34, 20, 20], [[1, 3, 4], [0, 2]]),
        ([40, 40], [[0, 1]]),
    ],
)
def test_long_texts_are_parted_where_it_saves_pads(
    lengths: list[int], parts: list[list[int]]
) -> None:
    assert split_by_length(lengths, 30) == parts


def test_equal_numbers_of_texts_need_no_slots() -> None:
    cpu = torch.device("cpu")
    assert slots_of([0, 0, 1, 1], 2, cpu) is None
    uneven = slots_of([0, 2, 2], 3, cpu)
    assert uneven is not None
    assert (uneven.index.tolist(), uneven.size) == ([0, 4, 5], 6)


@pytest.mark.parametrize("counts", [[1, 1, 1, 1], [2, 2, 2, 2], [0, 3, 1, 2]])
def test_parted_texts_have_the_scores_of_undivided_ones(
    filter_: Filter, images: Tensor, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [["a dog", "a red bird near the old house " * 4, "sea"][:count] for count in counts]
    texts = [row[::-1] if number % 2 else row for number, row in enumerate(texts)]
    texts[-1] = ["a red bird near the old house " * (3 + n) for n in range(counts[-1])]
    whole = filter_.score(images[:4], texts)
    monkeypatch.setitem(LEAST_SAVED, "cpu", 0)
    seen: list[int] = []
    encode = filter_.network.text_encoder.encode_groups

    def counted(groups: Sequence[TextGroup], states: Tensor) -> list[Tensor]:
        seen.append(len(groups))
        return encode(groups, states)

    monkeypatch.setattr(filter_.network.text_encoder, "encode_groups", counted)
    parted = filter_.score(images[:4], texts)
    assert seen == [2]
    for row, others in zip(parted, whole, strict=True):
        for score, other in zip(row, others, strict=True):
            assert score.itm_logit == pytest.approx(other.itm_logit, abs=1e-5)
            assert score.itc == pytest.approx(other.itc, abs=1e-5)
            assert (score.tokens, score.truncated) == (other.tokens, other.truncated)


def test_a_picture_is_seen_once_and_projected_once(
    filter_: Filter, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LEAST_SAVED, "cpu", 0)
    tower, layers = filter_.network.vision_model, filter_.network.text_encoder.encoder.layers()
    seen: list[int] = []
    made: list[int] = []
    projections = [layer.crossattention.self for layer in layers]
    hooks = [part.key.register_forward_hook(lambda *_: made.append(1)) for part in projections]
    hooks.append(tower.post_layernorm.register_forward_hook(lambda *_: seen.append(1)))
    for part in projections:
        part.key.weight.data = part.key.weight.clone()  # apart from the values: a product each
    filter_.score(images[:4], [["a dog", "a red bird near the old house " * 4]] * 4)
    for hook in hooks:
        hook.remove()
    assert (len(seen), len(made)) == (1, len(layers))
