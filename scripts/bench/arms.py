"""The arms of the benchmark: one line each.

One of capfilt's own is a name and what it changes in the recipe, as in `capfilt clean --set`. An
optimisation that a setting turns off gets a line here, and nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from scripts.bench import data_juicer, guests, ours, theirs
from scripts.bench.inputs import Inputs

Work = Callable[[], int]  # returns how many images it did


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to do the work; `whole`: it captions with BLIP and scores, as the numerator counts."""

    name: str
    open: Callable[[Inputs], Work]
    whole: bool = True


def peer(name: str, opened: Callable[..., Work], share: int = 1) -> Arm:
    """Make an arm of others; one that is slow does one image in `share`."""
    return Arm(name, partial(opened, share=share), opened not in GUESTS)


def capfilt(name: str, *settings: str, whole: bool = True) -> Arm:
    """Make an arm of ours, with settings changed."""
    return Arm(name, partial(ours.open_run, settings=settings), whole)


GUESTS = (guests.open_florence, guests.open_smolvlm)
WHOLE = "capfilt"
ARMS = (
    peer("transformers, model card", theirs.open_card, share=4),
    peer("transformers, batched", theirs.open_batched),
    peer("transformers, encode once", theirs.open_once),
    peer(data_juicer.NAME, data_juicer.open_data_juicer, share=4),
    peer("Florence-2, caption only", guests.open_florence),
    peer("SmolVLM, caption only", guests.open_smolvlm),
    capfilt(WHOLE),
    capfilt("- pictures one by one", "engine.batch_size=1"),
    capfilt("- one decode thread", "engine.decode_threads=1"),
    capfilt("- no clean tar", "write.clean=none"),
    Arm("- products not packed", ours.open_unpacked),
    capfilt("capfilt, int8", "dtype=int8"),  # the vision towers' products; for CPUs
    capfilt(
        "capfilt, tiny models",
        "caption.model={folder}/tiny/captioner",
        "score.model={folder}/tiny/filter",
        whole=False,
    ),
)


def chosen(names: list[str]) -> tuple[Arm, ...]:
    """Pick arms by the beginnings of their names; all for none. ValueError for one that is none."""
    for name in names:
        if not any(arm.name.startswith(name) for arm in ARMS):
            known = "".join(f"\n  {arm.name}" for arm in ARMS)
            raise ValueError(f"there is no arm {name!r}; there are{known}")
    return tuple(arm for arm in ARMS if not names or any(map(arm.name.startswith, names)))
