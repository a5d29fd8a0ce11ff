"""What a GPU would be waited for: values that Python reads, and tensors made out of Python's.

It counts on a CPU, where all of them cost nothing. Operations that are dispatched are seen in the
backward pass, too; `tolist` and its like, which read memory as it is, where Python calls them.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# a shape that depends on values; a value that becomes a number; a tensor of a list
OPERATIONS = {"nonzero", "masked_select", "_local_scalar_dense", "_unique2", "lift_fresh", "equal"}
METHODS = {"tolist", "item", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__"}


class _Dispatched(TorchDispatchMode):
    def __init__(self, reads: Counter[str]) -> None:
        super().__init__()
        self.reads = reads

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in OPERATIONS:
            self.reads[name] += 1
        if name in ("index", "index_put_", "index_put") and any(map(_is_mask, args[1])):
            self.reads["index by a mask"] += 1
        return func(*args, **(kwargs or {}))


class _Called(TorchFunctionMode):
    def __init__(self, reads: Counter[str]) -> None:
        super().__init__()
        self.reads = reads

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in METHODS:
            self.reads[name] += 1
        return func(*args, **(kwargs or {}))


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype == torch.bool


@contextmanager
def host_reads() -> Iterator[Counter[str]]:
    """Count what is read in the block, by its name."""
    reads: Counter[str] = Counter()
    with _Dispatched(reads), _Called(reads):
        yield reads
