"""Stage `arms`: cleaning beside its peers, A B C, A B C; a line for each turn of an arm."""

from collections.abc import Iterator
from functools import partial

from scripts.bench import guests, theirs
from scripts.bench.arms import Arm, capfilt, peer
from scripts.bench.ceiling import ceiling
from scripts.bench.gpu.runner import Case, Facts
from scripts.bench.gpu.setting import Setting
from scripts.bench.inputs import Inputs
from scripts.bench.meter import measure
from scripts.bench.table import NUMERATORS

# Of ours, a line for each optimisation: a name, and settings as of `capfilt clean --set`. The most
# valuable come first: the time may end in the second turn.
ARMS = (
    capfilt("capfilt"),
    capfilt("capfilt, batches of 256", "engine.batch_size=256"),
    capfilt("capfilt, 256 and 14 threads", "engine.batch_size=256", "engine.decode_threads=14"),
    peer("transformers, model card", theirs.open_card, share=64),
    peer("transformers, encode once", theirs.open_once, share=4),
    peer("transformers, batched", theirs.open_batched, share=4),
    capfilt("capfilt, batches of 16, 2 threads", "engine.batch_size=16", "engine.decode_threads=2"),
)
# once, at the end: they caption alone
GUESTS = (
    peer("Florence-2, caption only", guests.open_florence, share=8),
    peer("SmolVLM, caption only", guests.open_smolvlm, share=8),
)
TURNS = 3


def cases(setting: Setting) -> Iterator[Case]:
    """Let the arms take turns."""
    images = setting.pick(4_096, 4)
    inputs = setting.inputs(images, setting.pick(2_048, 2), setting.pick(256, 2))
    for turn in range(setting.pick(TURNS, 1)):
        for arm in ARMS:
            yield Case(f"{arm.name}, turn {turn + 1}", partial(take, setting, inputs, arm))
    for arm in setting.pick(GUESTS, ()):
        yield Case(f"{arm.name}, turn 1", partial(take, setting, inputs, arm), 60)


def take(setting: Setting, inputs: Inputs, arm: Arm) -> Facts:
    """Measure one turn of an arm, and the ceiling right after it."""
    cost = measure(arm.open(inputs))
    top = ceiling(inputs.device, inputs.dtype)
    facts = {"arm": arm.name, "images_per_s": cost.images_per_s, "ceiling_gflops": top}
    numerator = NUMERATORS.get((setting.size, setting.px))
    if numerator and arm.whole:
        facts["mfu"] = cost.images_per_s * numerator / top
    return facts | cost.to_dict()
