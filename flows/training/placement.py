"""How a training divides a cluster: workers that are all equal, each within one machine."""

from collections.abc import Sequence

from flows.engines.placement import Auto, Machine, Seat, describe


def count_room(machines: Sequence[Machine], gpus: float, cpus: int | Auto) -> int:
    """Count the workers with so many whole GPUs and processors that the machines can hold."""
    size = 1 if cpus == "auto" else cpus
    return sum(_room(machine, gpus, size) for machine in machines)


def equal_seats(
    machines: Sequence[Machine], workers: int, gpus: float, cpus: int | Auto = "auto"
) -> tuple[Seat, ...]:
    """Find seats for so many equal workers, as large as they can be; none where they do not fit.

    They sit on as few machines as can be, since each step waits for the network between them.
    """
    most = max((int(machine.cpus) for machine in machines), default=0)
    for size in range(most, 0, -1) if cpus == "auto" else (cpus,):
        rooms = sorted(
            ((_room(machine, gpus, size), machine) for machine in machines),
            key=lambda pair: -pair[0],
        )
        if workers and sum(room for room, _ in rooms) >= workers:
            free = [
                Seat(machine.id, machine.host, float(size), gpus)
                for room, machine in rooms
                for _ in range(room)
            ]
            return tuple(free[:workers])
    return ()


def largest_division(most: int, lanes: int) -> int:
    """Return the largest number of workers, at most so many, that share out the lanes evenly."""
    return max((count for count in range(1, most + 1) if lanes % count == 0), default=0)


def explain(
    machines: Sequence[Machine],
    wanted: tuple[int | Auto, int | Auto, float],
    launched: Sequence[str] = (),
) -> str:
    """Say what is wanted (workers, processors and GPUs of each), what there is, and what to set."""
    workers, cpus, gpus = wanted
    each = f"{'a processor' if cpus in ('auto', 1) else f'{cpus} processors'}"
    each += f" and {gpus:g} GPU" if gpus else ""
    count = "a worker" if workers in ("auto", 1) else f"{workers} workers"
    have = "; ".join(describe(machine) for machine in machines) or "no machine"
    said = f"wanted: {count} with {each} each, on one machine or on several. There are: {have}"
    if launched:
        return f"{said}. On their way: {', '.join(launched)}"
    return (
        f"{said}. Add machines (they are used as soon as they join), or set launch.workers and "
        "launch.cpus_per_worker to what these hold"
    )


def _room(machine: Machine, gpus: float, cpus: int) -> int:
    by_cpu = int(machine.cpus // cpus)
    return min(by_cpu, int(machine.gpus // gpus)) if gpus else by_cpu
