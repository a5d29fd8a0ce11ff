"""Videos: the original's numbers of retrieval, frames by mid-points, no dependence on the batch."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from models.blip.config import Role
from models.roles.retrieval import UNRANKED
from models.roles.video import VideoRetriever

Folders = Callable[[str, Role], Path]
Reference = Callable[[str], tuple[dict[str, Tensor], dict[str, float]]]


@pytest.fixture(scope="module")
def matcher(original_folder: Folders) -> VideoRetriever:
    return VideoRetriever.load(original_folder("retrieval", "filter"), dtype="fp32")


@pytest.fixture(scope="module")
def videos(parity: Path) -> Tensor:
    """uint8 (B, F, 3, S, S)."""
    return load_file(parity / "images.safetensors")["video_u8"]


@pytest.fixture(scope="module")
def texts(parity: Path) -> list[str]:
    return json.loads((parity / "video.json").read_text())["texts"]


def test_numbers_equal_the_original(
    matcher: VideoRetriever, reference: Reference, videos: Tensor, texts: list[str]
) -> None:
    values, limits = reference("video")
    looked, read = matcher.encode_images(videos), matcher.encode_texts(texts)
    mask = values["in.attention_mask"].bool()
    width = read.framed.ids.shape[1]
    assert torch.equal(read.framed.ids, values["in.input_ids_cls"][:, :width])
    assert torch.equal(read.framed.mask, mask[:, :width])
    assert not mask[:, width:].any()
    found = {"video_embed": looked.unit, "itc_sims_v2t": looked.unit @ read.unit.T}
    for k in (3, 4):
        scores = matcher.rank(looked, read, k)
        found |= {f"score_v2t_k{k}": scores.to_text, f"score_t2v_k{k}": scores.to_image}
    assert {f"out.{name}" for name in found} == {n for n in values if n.startswith("out.")}
    for name, tensor in found.items():
        key = f"out.{name}"
        torch.testing.assert_close(tensor, values[key], atol=limits[key], rtol=1e-5)


def test_scores_do_not_depend_on_the_batch(
    matcher: VideoRetriever, videos: Tensor, texts: list[str]
) -> None:
    together = matcher.rank(matcher.encode_images(videos), matcher.encode_texts(texts), 4)
    backwards = matcher.rank(
        matcher.encode_images(videos.flip(0)), matcher.encode_texts(texts[::-1]), 4
    )
    torch.testing.assert_close(backwards.to_text.flip(0, 1), together.to_text, atol=1e-5, rtol=0)
    for row in range(len(videos)):
        for column, text in enumerate(texts):
            one = matcher.rank(
                matcher.encode_images(videos[row : row + 1]), matcher.encode_texts([text]), 1
            )
            expected = together.to_text[row, column].item()
            assert one.to_text.item() == pytest.approx(expected, abs=1e-5)
            assert one.to_image.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("k", [1, 2, 3, 9])
def test_the_best_k_by_cosine_are_scored(
    matcher: VideoRetriever, videos: Tensor, texts: list[str], k: int
) -> None:
    looked, read = matcher.encode_images(videos), matcher.encode_texts([*texts, "a dog", "a dog"])
    whole, found = matcher.rank(looked, read, 9), matcher.rank(looked, read, k)
    cosines = (looked.unit @ read.unit.T).tolist()
    assert (whole.to_text > UNRANKED).all()
    torch.testing.assert_close(whole.to_text, whole.to_image.T)
    torch.testing.assert_close(found.cosines, looked.unit @ read.unit.T)
    to_text = torch.full_like(whole.to_text, UNRANKED)
    to_image = torch.full_like(whole.to_image, UNRANKED)
    for row, line in enumerate(cosines):
        for column in sorted(range(len(line)), key=lambda n: (-line[n], n))[:k]:
            to_text[row, column] = whole.to_text[row, column]
    for row in range(len(cosines[0])):
        line = [cosines[video][row] for video in range(len(cosines))]
        for column in sorted(range(len(line)), key=lambda n: (-line[n], n))[:k]:
            to_image[row, column] = whole.to_image[row, column]
    torch.testing.assert_close(found.to_text, to_text, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.to_image, to_image, atol=1e-5, rtol=0)


def test_a_still_video_is_its_frame(matcher: VideoRetriever, videos: Tensor) -> None:
    still = videos[:1, :1]
    one, many = matcher.encode_images(still), matcher.encode_images(still.expand(-1, 5, -1, -1, -1))
    torch.testing.assert_close(one.unit, many.unit)
    read = matcher.encode_texts(["two dogs"])
    torch.testing.assert_close(
        matcher.rank(one, read).to_text, matcher.rank(many, read).to_text, atol=1e-5, rtol=0
    )


def test_no_texts(matcher: VideoRetriever, videos: Tensor) -> None:
    none = matcher.encode_texts([])
    found: Any = matcher.rank(matcher.encode_images(videos[:2]), none)
    assert found.to_text.shape == (2, 0)
    assert found.to_image.shape == (0, 2)
