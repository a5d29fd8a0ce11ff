"""Videos: the original's numbers of retrieval, frames by mid-points, no dependence on the batch."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from models.config import Role
from models.roles.retrieval import UNRANKED
from models.roles.video import VideoRetriever, midpoints

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
    looked, read = matcher.look(videos), matcher.read(texts)
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
    together = matcher.rank(matcher.look(videos), matcher.read(texts), 4)
    backwards = matcher.rank(matcher.look(videos.flip(0)), matcher.read(texts[::-1]), 4)
    torch.testing.assert_close(backwards.to_text.flip(0, 1), together.to_text, atol=1e-5, rtol=0)
    for row in range(len(videos)):
        for column, text in enumerate(texts):
            one = matcher.rank(matcher.look(videos[row : row + 1]), matcher.read([text]), 1)
            expected = together.to_text[row, column].item()
            assert one.to_text.item() == pytest.approx(expected, abs=1e-5)
            assert one.to_image.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("k", [1, 2, 3, 9])
def test_the_best_k_by_cosine_are_scored(
    matcher: VideoRetriever, videos: Tensor, texts: list[str], k: int
) -> None:
    looked, read = matcher.look(videos), matcher.read([*texts, "a dog", "a dog"])
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
    one, many = matcher.look(still), matcher.look(still.expand(-1, 5, -1, -1, -1))
    torch.testing.assert_close(one.unit, many.unit)
    read = matcher.read(["two dogs"])
    torch.testing.assert_close(
        matcher.rank(one, read).to_text, matcher.rank(many, read).to_text, atol=1e-5, rtol=0
    )


def slow_midpoints(frames: int, count: int) -> list[int]:
    """Walk through the video in steps of 1 / count of a frame, noting the middle of each span."""
    chosen, ticks_per_span = [], frames  # a frame has `count` ticks, so a span has `frames`
    for span in range(count):
        middle = span * ticks_per_span + ticks_per_span / 2
        frame = 0
        while (frame + 1) * count <= middle:
            frame += 1
        chosen.append(frame)
    return chosen


@given(frames=st.integers(1, 400), count=st.integers(1, 40))
def test_midpoints_equal_a_walk(frames: int, count: int) -> None:
    found = midpoints(frames, count)
    assert found == slow_midpoints(frames, count)
    assert found == sorted(found)
    assert all(0 <= frame < frames for frame in found)
    gaps = {second - first for first, second in itertools.pairwise(found)}
    assert not gaps or max(gaps) - min(gaps) <= 1
    # the ends are missed alike, but for rounding
    assert abs(found[0] - (frames - 1 - found[-1])) <= 1


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        # a whole-number step would take 0 to 7 of 15, only the first of 5, and stop at 287 of 333
        (15, [0, 2, 4, 6, 8, 10, 12, 14]),
        (5, [0, 0, 1, 2, 2, 3, 4, 4]),
        (333, [20, 62, 104, 145, 187, 228, 270, 312]),
        (8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (1, [0] * 8),
    ],
)
def test_midpoints_of_awkward_lengths(frames: int, expected: list[int]) -> None:
    assert midpoints(frames, 8) == expected


def test_no_frames_are_refused() -> None:
    for frames, count in ((0, 8), (8, 0), (-1, 1)):
        with pytest.raises(ValueError, match="at least 1"):
            midpoints(frames, count)


def test_no_texts(matcher: VideoRetriever, videos: Tensor) -> None:
    none = matcher.read([])
    found: Any = matcher.rank(matcher.look(videos[:2]), none)
    assert found.to_text.shape == (2, 0)
    assert found.to_image.shape == (0, 2)
