"""Stage `correctness`: a GPU gives what the CPU gives, and whole runs verify."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch

from flows.engines.clean_worker import compile_towers
from models.blip.config import Dtype
from scripts.bench.gpu import runs
from scripts.bench.gpu.runner import Case, Facts
from scripts.bench.gpu.setting import Setting

CPU = torch.device("cpu")
Way = tuple[torch.device, Dtype, int]  # device, dtype, batch


def cases(setting: Setting) -> Iterator[Case]:
    """Compare the models' outputs, then whole runs."""
    gpu, few = setting.device, setting.pick(16, 3)
    by_cpu: Way = (CPU, "fp32", few)
    compare = partial(alike, setting, few)
    yield Case("device against CPU, fp32", partial(compare, by_cpu, (gpu, "fp32", few)), 180)
    yield Case("bf16 against fp32", partial(compare, (gpu, "fp32", few), (gpu, "bf16", few)))
    for size in setting.pick((1, 5), (1,)):  # 5: the last batch is a rest
        ways = (gpu, "fp32", few), (gpu, "fp32", size)
        yield Case(f"batches of {size} against {few}, fp32", partial(compare, *ways))
    yield Case("graphs against eager", partial(graphs, setting, few))
    yield Case("compiled towers against eager", partial(compiled, setting, few), 240)
    yield Case("clean, then verify", partial(runs.whole, setting), 180)
    yield Case("out of memory", partial(runs.out_of_memory, setting), 180)


def alike(setting: Setting, count: int, first: Way, second: Way) -> Facts:
    """Compare greedy captions, and logits of fixed texts."""
    texts = [["a red circle above a blue square", "a dog on a street"]] * count
    pictures = setting.pictures(count)
    (words, scores), (others, their_scores) = (
        outputs(setting, pictures, texts, way) for way in (first, second)
    )
    apart = (scores - their_scores).abs()
    same = sum(one == other for one, other in zip(words, others, strict=True))
    return {
        "captions_equal": same / count,
        "itm_logit_max": apart[..., 0].max().item(),
        "itm_logit_mean": apart[..., 0].mean().item(),
        "itc_max": apart[..., 1].max().item(),
        "first_different": next(
            (pair for pair in zip(words, others, strict=True) if pair[0] != pair[1]), None
        ),
    }


def outputs(
    setting: Setting, pictures: torch.Tensor, texts: Sequence[Sequence[str]], way: Way
) -> tuple[list[str], torch.Tensor]:
    """Caption greedily and score: texts, and ITM logits and ITC cosines (B, N, 2)."""
    device, dtype, size = way
    captioner = setting.captioner(dtype, device, method="greedy")
    scorer = setting.scorer(dtype, device)
    words: list[str] = []
    scores: list[list[tuple[float, float]]] = []
    for first in range(0, len(pictures), size):
        part = pictures[first : first + size]
        keys = [str(first + number) for number in range(len(part))]
        words += [caption.text for (caption,) in captioner.caption(part, keys, 1)]
        rows = scorer.score(part, texts[first : first + size])
        scores += [[(score.itm_logit, score.itc) for score in row] for row in rows]
    return words, torch.tensor(scores)


@torch.inference_mode()
def compiled(setting: Setting, count: int) -> Facts:
    """Compare the states of a compiled vision tower with those of the tower as it is."""
    if setting.device.type != "cuda":
        return {"skipped": "only on a GPU are towers compiled"}
    pictures, scorer = setting.pictures(count), setting.scorer("auto", setting.device)
    eager = scorer.image_states(pictures).float()
    warm_up_s = compile_towers([scorer], count)
    found = scorer.image_states(pictures).float()
    apart = ((found - eager).norm() / eager.norm()).item()
    return {"compiled": scorer.is_compiled, "warm_up_s": warm_up_s, "relative_error": apart}


def graphs(setting: Setting, count: int) -> Facts:
    """Compare captions written by captured graphs with those of the eager loop."""
    if setting.device.type != "cuda":
        return {"skipped": "only a GPU records graphs"}
    pictures, keys = setting.pictures(count), [str(number) for number in range(count)]
    by_graph = setting.captioner("auto", setting.device).caption(pictures, keys, 1)
    stepping = setting.captioner("auto", setting.device)
    stepping.write_step_by_step()
    eager = stepping.caption(pictures, keys, 1)
    same = [a.text == b.text for (a,), (b,) in zip(by_graph, eager, strict=True)]
    return {"captions_equal": sum(same) / count}
