"""What ITC keeps between steps: momentum copies of the encoders, and queues of their features.

Both come from MoCo through ALBEF (ALBEF §3.2), which BLIP follows (BLIP §3.2).

Shapes: N features to enqueue, E projection width, Q places in the queue.
"""

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

EMPTY_ID = -100  # the image id of a place that holds none, as in the original's files


@torch.no_grad()
def follow(pairs: Iterable[tuple[nn.Module, nn.Module]], momentum: float) -> None:
    """Move each copy towards its module: m · copy + (1 - m) · module (ALBEF §3.5: m = 0.995)."""
    copies: list[Tensor] = []
    leaders: list[Tensor] = []
    for module, copy in pairs:
        leaders += [parameter.detach() for parameter in module.parameters()]
        copies += [parameter.detach() for parameter in copy.parameters()]
    if copies:
        # one kernel for all parameters; the third argument is a count that this average ignores
        get_ema_multi_avg_fn(momentum)(copies, leaders, 0)


@torch.no_grad()
def restart(pairs: Iterable[tuple[nn.Module, nn.Module]]) -> None:
    """Make each copy equal to its module, as at the start of training."""
    for module, copy in pairs:
        for leader, follower in zip(module.parameters(), copy.parameters(), strict=True):
            follower.copy_(leader)


class FeatureQueue(nn.Module):
    """A ring of the last Q momentum features of images and texts.

    Any number of features may arrive at once; of more than Q, the last Q stay. Places that were
    never filled are not valid. With `ids`, each place knows its image's id, with `hashes` its
    text's hash. The buffers carry the names of the original's files; it has no hashes.
    """

    image_queue: Tensor  # (E, Q), as are the texts'
    text_queue: Tensor
    queue_ptr: Tensor  # (1,): the place that is filled next
    queue_valid: Tensor  # (1,): places filled so far
    idx_queue: Tensor | None  # (1, Q)
    hash_queue: Tensor | None  # (1, Q)

    def __init__(self, width: int, size: int, *, ids: bool = False, hashes: bool = False) -> None:
        """Make an empty queue; ValueError if it has no room."""
        super().__init__()
        if size < 1:
            raise ValueError(f"the queue has {size} places; expected 1 or more")
        self.register_buffer("image_queue", torch.zeros(width, size))
        self.register_buffer("text_queue", torch.zeros(width, size))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
        self.register_buffer("queue_valid", torch.zeros(1, dtype=torch.long))
        for name, wanted in (("idx_queue", ids), ("hash_queue", hashes)):
            self.register_buffer(name, torch.full((1, size), EMPTY_ID) if wanted else None)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "FeatureQueue":
        """Take the queue out of a checkpoint's tensors.

        The original writes no count of valid places: its queue counts as full, random as a part
        of it may be. Its retrieval files name the pointer `ptr_queue`.
        """
        width, size = tensors["image_queue"].shape
        queue = cls(width, size, ids="idx_queue" in tensors, hashes="hash_queue" in tensors)
        pointer = "queue_ptr" if "queue_ptr" in tensors else "ptr_queue"
        state = {name: tensors.get(name) for name in queue.state_dict()}
        state["queue_ptr"] = tensors[pointer].reshape(1) % size
        if state["queue_valid"] is None:
            state["queue_valid"] = torch.tensor([size])
        queue.load_state_dict(cast(dict[str, Tensor], state))
        return queue

    @property
    def size(self) -> int:
        """Q."""
        return self.image_queue.shape[1]

    def valid(self) -> Tensor:
        """Mark the places that hold features: (Q,)."""
        return torch.arange(self.size, device=self.queue_valid.device) < self.queue_valid

    @torch.no_grad()
    def enqueue(
        self,
        images: Tensor,
        texts: Tensor,
        ids: Tensor | None = None,
        hashes: Tensor | None = None,
    ) -> None:
        """Add features (N, E), with the image ids and text hashes (N,), over the oldest ones."""
        kept = ((self.idx_queue, ids), (self.hash_queue, hashes))
        if any((ring is None) != (numbers is None) for ring, numbers in kept):
            raise ValueError("give ids and hashes to a queue that keeps them, and to no other")
        count, size = len(images), self.size
        if count == 0:
            return
        last = min(count, size)  # a place may be written once only
        slots = torch.arange(count - last, count, device=self.queue_ptr.device)
        slots = (slots + self.queue_ptr) % size
        self.image_queue[:, slots] = images[-last:].T.to(self.image_queue)
        self.text_queue[:, slots] = texts[-last:].T.to(self.text_queue)
        for ring, numbers in kept:
            if ring is not None and numbers is not None:
                ring[:, slots] = numbers[-last:]
        self.queue_ptr.copy_((self.queue_ptr + count) % size)
        self.queue_valid.copy_((self.queue_valid + count).clamp(max=size))
