"""Where workers go: how many of which size the machines of a cluster can hold, as arithmetic.

A worker is sized by the machine that holds it, never by the sum of all: no machine may hold a
worker of four processors, though two of them have two each.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

CPUS_PER_ACTOR = 2  # where there is no GPU
Auto = Literal["auto"]


@dataclass(frozen=True, slots=True)
class Machine:
    """What one machine of a cluster has for us: all of it, less what others hold."""

    id: str
    host: str
    cpus: float
    gpus: float = 0.0
    memory_bytes: float = math.inf


@dataclass(frozen=True, slots=True)
class Seat:
    """Room for one worker on a machine, and the processors and GPUs that it gets there."""

    machine: str
    host: str
    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True)
class Wish:
    """What a recipe asks for; `auto` is what the machines can hold.

    `worker_bytes` is the memory that one worker needs, of its machine.
    """

    workers: int | Auto = "auto"
    gpus: float | Auto = "auto"
    worker_bytes: float = 0.0

    def gpus_each(self, machines: Sequence[Machine]) -> float:
        """Return the GPUs of one worker: `auto` is one wherever any machine has one."""
        if self.gpus != "auto":
            return self.gpus
        return 1.0 if any(machine.gpus >= 1 for machine in machines) else 0.0


def seats(machines: Sequence[Machine], wish: Wish, most: int) -> list[Seat]:
    """Find the seats of at most so many workers; where GPUs are used, a machine without has none.

    Workers spread over the machines, to wherever each gets most; none where nothing fits.
    """
    gpus = wish.gpus_each(machines)
    limit = most if wish.workers == "auto" else min(most, wish.workers)
    rooms = {machine.id: _room(machine, gpus, wish) for machine in machines}
    taken: Counter[str] = Counter()

    def share(machine: Machine) -> tuple[bool, float, float]:
        """Order machines by what one more worker would get there, and whether it would fit."""
        of = taken[machine.id] + 1
        return of <= rooms[machine.id], (machine.gpus / of if gpus else 0.0), machine.cpus / of

    for _ in range(limit):
        best = max(machines, key=share, default=None)
        if best is None or not share(best)[0]:
            break
        taken[best.id] += 1
    return [
        Seat(machine.id, machine.host, _divided(machine.cpus, taken[machine.id]), gpus)
        for machine in machines
        for _ in range(taken[machine.id])
    ]


def free_seats(
    machines: Sequence[Machine], wish: Wish, most: int, taken: Sequence[Seat]
) -> Iterator[Seat]:
    """Yield the seats that are not taken yet, none larger than what those taken leave."""
    wanted = Counter(seats(machines, wish, most))
    for seat, count in wanted.items():
        ours = [other for other in taken if other.machine == seat.machine]
        machine = next(machine for machine in machines if machine.id == seat.machine)
        missing = count - len(ours)
        if missing <= 0:
            continue
        cpus = _divided(machine.cpus - sum(other.cpus for other in ours), missing)
        if cpus > 0 and machine.gpus - sum(other.gpus for other in ours) >= missing * seat.gpus:
            yield from [replace(seat, cpus=min(seat.cpus, cpus))] * missing


def explain(machines: Sequence[Machine], wish: Wish, launched: Sequence[str] = ()) -> str:
    """Say what is wanted, what each machine has, and what to do; `launched`: nodes on their way."""
    gpus = wish.gpus_each(machines)
    wanted = f"{'a worker' if wish.workers == 'auto' else f'{wish.workers} workers'} with "
    wanted += f"{_count(gpus, 'GPU')} and a processor each" if gpus else "a processor each"
    have = "; ".join(describe(machine) for machine in machines) or "no machine"
    if launched:
        return f"wanted: {wanted}. There are: {have}. On their way: {', '.join(launched)}"
    mend = "Add such a machine, or free what others hold: it is used at once"
    if gpus:
        mend += ", or set engine.gpus_per_actor to what a machine has (0: work on CPUs)"
    return f"wanted: {wanted}. There are: {have}. {mend}"


def describe(machine: Machine) -> str:
    """Say what a machine has for us."""
    cpus, gpus = _count(machine.cpus, "processor"), _count(machine.gpus, "GPU")
    return f"{machine.host} with {cpus} and {gpus} free"


def _room(machine: Machine, gpus: float, wish: Wish) -> int:
    """Count the workers that a machine can hold."""
    if machine.cpus <= 0:
        return 0
    by_memory = (
        max(1, int(machine.memory_bytes // wish.worker_bytes)) if wish.worker_bytes else None
    )
    if gpus:
        # two workers of three quarters do not share a GPU
        whole, part = divmod(machine.gpus, 1)
        by_gpu = int(machine.gpus // gpus)
        if gpus < 1:
            by_gpu = int(whole) * int(1 / gpus + 1e-9) + int(part / gpus + 1e-9)
        return by_gpu if by_memory is None else min(by_gpu, by_memory)
    if wish.workers != "auto":
        return wish.workers  # as many as asked for, each with a part of a processor if need be
    by_cpu = max(1, int(machine.cpus // CPUS_PER_ACTOR))
    return by_cpu if by_memory is None else min(by_cpu, by_memory)


def _divided(cpus: float, workers: int) -> float:
    """Divide processors among workers: Ray takes whole ones, or a fraction of one."""
    if not workers or cpus <= 0:
        return 0.0
    each = cpus / workers
    return float(int(each)) if each >= 1 else math.floor(each * 1e4) / 1e4


def _count(number: float, what: str) -> str:
    return f"{number:g} {what}{'' if number == 1 else 's'}"
