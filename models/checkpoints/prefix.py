"""What wrappers put before the names of all tensors: DataParallel's `module.`, and its like."""

import os
from collections.abc import Callable, Collection

_LONGEST = 200  # letters


def common_prefix(names: Collection[str], fits: Callable[[str], bool]) -> str:
    """Find what all names begin with that must go so that most of them fit; "" where nothing must.

    `module.`, `model.`, `_orig_mod.`, or any other, and several of them, one behind another.
    """
    shared = os.path.commonprefix(list(names))[:_LONGEST]  # noqa: RUF071 - letters, not parts
    lengths = range(len(shared) + 1)
    fitting = [sum(fits(name[length:]) for name in names) for length in lengths]
    return shared[: fitting.index(max(fitting))]
