"""States of pictures and videos, by the tower as it is and by faster ones."""

import copy
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from models.blip.image_encoder import ImageEncoder
from models.checkpoints.checkpoint import Checkpoint


@pytest.fixture
def encoder(match_checkpoint: Checkpoint) -> ImageEncoder:
    network: Any = match_checkpoint.network
    tower = copy.deepcopy(network.vision_model)
    return ImageEncoder(tower, match_checkpoint.description.preprocess)


@torch.no_grad()
def test_states_of_a_video_are_those_of_its_frames(
    encoder: ImageEncoder, match_checkpoint: Checkpoint, images: Tensor
) -> None:
    network: Any = match_checkpoint.network
    images = images[:6]
    frames = encoder(images)
    video = encoder(images.view(2, 3, *images.shape[1:]))
    assert video.shape == (2, 3 * frames.shape[1], frames.shape[2])
    torch.testing.assert_close(video.view(frames.shape), frames)
    pixels = match_checkpoint.description.preprocess.normalise(images, torch.float32)
    assert torch.equal(frames, network.vision_model(pixels))


@torch.no_grad()
def test_a_compiled_tower_sees_the_same(
    encoder: ImageEncoder, images: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    expected = [encoder(images), encoder(images[:3])]
    caplog.set_level(logging.INFO)
    encoder.compile(partial(torch.compile, backend="aot_eager"))
    for batch, states in zip((images, images[:3]), expected, strict=True):
        torch.testing.assert_close(encoder(batch), states, atol=1e-5, rtol=1e-5)
    assert caplog.text.count("was compiled in") == 1


@torch.no_grad()
def test_a_tower_that_does_not_compile_is_run_as_it_is(
    encoder: ImageEncoder, images: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    expected, calls = encoder(images), []

    def broken(_: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def see(_: Tensor) -> Tensor:
            calls.append(1)
            raise RuntimeError("Failed to find C compiler\nmore")

        return see

    encoder.compile(broken)
    assert torch.equal(encoder(images), expected)
    assert torch.equal(encoder(images), expected)
    assert len(calls) == 1
    assert caplog.text.count("cannot be compiled, and is run as it is") == 1
    assert "Failed to find C compiler" in caplog.text


@torch.no_grad()
def test_memory_that_is_out_is_no_failure_to_compile(encoder: ImageEncoder, images: Tensor) -> None:
    def full(_: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    encoder.compile(lambda _: full)
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            encoder(images)


@torch.no_grad()
def test_int8_states_are_close_and_leave_torchs_engine_alone(
    encoder: ImageEncoder, images: Tensor
) -> None:
    engine, expected = torch.backends.quantized.engine, encoder(images)
    encoder.quantise()
    assert torch.backends.quantized.engine == engine
    found = encoder(images)
    assert not torch.equal(found, expected)
    assert (found - expected).norm() / expected.norm() < 0.06  # of random weights


@pytest.mark.gpu
@torch.no_grad()
def test_a_gpu_compiles_the_tower(match_checkpoint: Checkpoint, images: Tensor) -> None:
    network: Any = copy.deepcopy(match_checkpoint.network)
    encoder = ImageEncoder(network.vision_model.cuda(), match_checkpoint.description.preprocess)
    expected = encoder(images)
    encoder.compile()
    torch.testing.assert_close(encoder(images), expected, atol=1e-4, rtol=1e-4)
    assert encoder._fast is not None
