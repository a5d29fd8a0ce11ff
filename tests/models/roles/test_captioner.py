"""The captioner: captions that depend on the image and its key alone."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.blip.config import DtypeChoice, Role
from models.decoding.config import Decoding
from models.roles.captioner import BlipCaptioner


def load(
    folder: Path, dtype: DtypeChoice = "fp32", seed: int = 0, **decoding: object
) -> BlipCaptioner:
    chosen = Decoding(**{"min_tokens": 2, "max_tokens": 12, **decoding})
    return BlipCaptioner.load(folder, decoding=chosen, seed=seed, dtype=dtype)


@pytest.fixture(scope="module")
def folder(parity: Path) -> Path:
    return parity / "hf/captioning"


@pytest.mark.parametrize("method", ["nucleus", "beam", "greedy"])
def test_captions_do_not_depend_on_the_batch(folder: Path, images: Tensor, method: str) -> None:
    captioner = load(folder, method=method)
    count = 1 if method == "greedy" else 3
    keys = [f"shard/{number}" for number in range(len(images))]
    together = captioner.caption(images, keys, count)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).tolist()
    mixed = captioner.caption(images[order], [keys[n] for n in order], count)
    for place, number in enumerate(order):
        alone = captioner.caption(images[number : number + 1], keys[number : number + 1], count)[0]
        for other in (mixed[place], alone):
            assert [c.text for c in other] == [c.text for c in together[number]]
            assert [c.tokens for c in other] == [c.tokens for c in together[number]]
            for first, second in zip(other, together[number], strict=True):
                assert first.logprob == pytest.approx(second.logprob, abs=1e-5)


def test_seed_key_and_number_decide_what_is_sampled(folder: Path, images: Tensor) -> None:
    same = images[:1].repeat(2, 1, 1, 1)
    captioner = load(folder)
    first, second = captioner.caption(same, ["a", "b"], 4)
    assert [c.text for c in first] != [c.text for c in second]
    assert len({c.text for c in first}) > 1
    fewer = captioner.caption(same[:1], ["a"], 2)[0]
    assert [c.text for c in fewer] == [c.text for c in first[:2]]
    other = load(folder, seed=1).caption(same[:1], ["a"], 4)[0]
    assert [c.text for c in other] != [c.text for c in first]


@pytest.mark.parametrize("method", ["nucleus", "beam", "greedy"])
def test_the_vision_tower_runs_once_per_image(folder: Path, images: Tensor, method: str) -> None:
    captioner = load(folder, method=method)
    seen: list[int] = []
    tower = captioner.network.vision_model
    tower.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    captioner.caption(images, [str(n) for n in range(len(images))], 1 if method == "greedy" else 3)
    assert seen == [len(images)]


def test_the_prompt_is_cut_as_ids(folder: Path, images: Tensor) -> None:
    """A prompt that its own tokens do not spell (capitals, spaces) is removed all the same."""
    plain = load(folder, method="greedy", prompt="a picture of ")
    odd = load(folder, method="greedy", prompt="  A   PICTURE of")
    keys = [str(n) for n in range(len(images))]
    texts = [[c.text for (c,) in one.caption(images, keys, 1)] for one in (plain, odd)]
    assert texts[0] == texts[1]
    assert not any("picture of" in text for text in texts[0])


def test_truncation_and_lengths_are_told(folder: Path, images: Tensor) -> None:
    keys = [str(number) for number in range(len(images))]
    captions = []
    for most in (5, 20):  # how soon a text ends by itself depends on the weights
        captioner = load(folder, max_tokens=most, top_p=1.0)
        written = [caption for row in captioner.caption(images, keys, 8) for caption in row]
        assert all((caption.tokens == most) == caption.truncated for caption in written)
        captions += written
    assert {caption.truncated for caption in captions} == {True, False}
    assert all(c.tokens >= 2 for c in captions)
    assert all(c.logprob < 0 for c in captions)


def test_beams_come_best_first_and_greedy_gives_one(folder: Path, images: Tensor) -> None:
    captioner = load(folder, method="beam", beams=4)
    row = captioner.caption(images[:1], ["a"], 4)[0]
    assert len({c.text for c in row}) == 4
    with pytest.raises(ValueError, match="beam decoding gives 1 to 4 texts"):
        captioner.caption(images[:1], ["a"], 5)
    with pytest.raises(ValueError, match="greedy decoding gives 1 to 1 texts"):
        load(folder, method="greedy").caption(images[:1], ["a"], 2)


def test_an_empty_batch_is_no_error(folder: Path, images: Tensor) -> None:
    assert load(folder).caption(images[:0], [], 1) == []


def test_a_limit_beyond_the_network_is_refused(folder: Path) -> None:
    stored = json.loads((folder / "config.json").read_text())["text_config"]
    most = stored["max_position_embeddings"]
    prompt = 4  # [DEC] a picture of
    with pytest.raises(ValueError, match=f"{most} positions"):
        load(folder, max_tokens=most - prompt + 1)
    assert load(folder, max_tokens=most - prompt).digest


def test_bf16_is_close(folders: dict[Role, Path]) -> None:
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    keys = ["a", "b", "c", "d"]
    exact, rough = (
        captioner.caption(images, keys, 1)
        for captioner in (
            load(folders["captioner"], "fp32", method="greedy"),
            load(folders["captioner"], "bf16", method="greedy"),
        )
    )
    for (first,), (second,) in zip(exact, rough, strict=True):
        assert second.logprob == pytest.approx(first.logprob, abs=0.05)
