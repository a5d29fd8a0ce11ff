"""Stage `parts`: where the time of a batch goes, by the device's own clock."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from models.blip.config import resolve_dtype
from models.roles.captioner import BlipCaptioner
from models.roles.filter import Filter
from scripts.bench.gpu.ceilings import seconds
from scripts.bench.gpu.runner import Case, Facts
from scripts.bench.gpu.setting import Setting

GFLOP = {"vision": 111.0, "vision compiled": 111.0, "cross K/V": 16.3}  # of an image, base at 384
TEXTS = ["a red circle above a blue square", "a dog that runs on a street with two cars"]


def cases(setting: Setting) -> Iterator[Case]:
    """Measure each part in batches of several sizes, the usual one first."""
    dtype = resolve_dtype("auto", setting.device)
    captioner = setting.captioner(dtype, setting.device)
    scorer = setting.scorer(dtype, setting.device)
    for size in setting.pick((256, 64, 16, 512), (2,)):
        for name, part in parts(captioner, scorer, setting.pictures(size)).items():
            yield Case(f"{name}, {size}", partial(time_part, name, part, size, setting.device), 90)
    # minutes of compiling: last
    tower = captioner.network.vision_model
    for size in setting.pick((256,), ()):
        pixels = normalised(captioner, setting.pictures(size))
        compiled = partial(torch.compile(tower, mode="max-autotune-no-cudagraphs"), pixels)
        work = partial(time_part, "vision compiled", compiled, size, setting.device)
        yield Case(f"vision compiled, {size}", work, 150)


def parts(
    captioner: BlipCaptioner, scorer: Filter, pictures: torch.Tensor
) -> dict[str, Callable[[], Any]]:
    """Name the parts of a batch; `caption` and `score` hold a pass of a vision tower each."""
    keys, decoder = [str(number) for number in range(len(pictures))], captioner.network.text_decoder
    pixels = normalised(captioner, pictures)
    with torch.inference_mode():
        states = captioner.image_states(pictures)
    words = scorer.tokenize([text for _ in keys for text in TEXTS], scorer.tokenizer.cls_id)
    return {
        "copy and normalise": lambda: normalised(captioner, pictures),
        "vision": lambda: captioner.network.vision_model(pixels),
        "cross K/V": lambda: decoder.bert.project_images(states),
        "caption": lambda: captioner.caption(pictures, keys, 1),
        "score": lambda: scorer.score(pictures, [TEXTS] * len(pictures)),
        "text features": lambda: scorer.network.text_features(words.ids, words.mask),
    }


def normalised(captioner: BlipCaptioner, pictures: torch.Tensor) -> torch.Tensor:
    """Move pictures to the device, as the vision tower takes them."""
    weight = captioner.network.vision_model.post_layernorm.weight
    return captioner.preprocess.normalise(pictures.to(weight.device), weight.dtype)


@torch.inference_mode()
def time_part(name: str, part: Callable[[], Any], size: int, device: torch.device) -> Facts:
    """Time a part, and count its kernels and the times that it waits for the device."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    took = seconds(part, device)
    facts: dict[str, Any] = {"batch": size, "ms": 1e3 * took, "us_an_image": 1e6 * took / size}
    if name in GFLOP:
        facts["tflops"] = GFLOP[name] * size / took / 1e3
    if device.type == "cuda":
        facts["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        facts |= _kernels(part)
    return facts


def _kernels(part: Callable[[], Any]) -> dict[str, int]:
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profile:
        part()
        torch.cuda.synchronize()
    names = [event.name for event in profile.events()]
    return {
        "launches": sum("LaunchKernel" in name for name in names),
        "graph_launches": sum("GraphLaunch" in name for name in names),
        "syncs": sum("StreamSynchronize" in name for name in names),
    }
