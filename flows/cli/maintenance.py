"""Commands that keep a run's files: `verify` and `gc`."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli.options import Address, AsJson, RunFolder
from pipeline.printable import number_of, size, visible

if TYPE_CHECKING:
    from shards.run.repair import Repair
    from shards.run.run import Run
    from shards.run.verify.garbage import Garbage, Leftover
    from shards.store import Store

NAMED_AT_MOST = 5
HOUR_S = 3600


def verify(
    run: RunFolder,
    repair: Annotated[
        bool, typer.Option("--repair", help="mend what is wrong; set aside what must be redone")
    ] = False,
    on: Annotated[
        Literal["local", "ray"], typer.Option(help="which machines read and hash the files")
    ] = "local",
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Recompute every count and hash of a run from its files; exit 1 if anything differs."""
    from shards.store import Store

    if repair and on == "ray":
        raise typer.BadParameter("--repair works on this machine alone: leave out --on ray")
    store = Store(run)
    raise typer.Exit(
        _repair(store, as_json) if repair else _verify(store, as_json, on == "ray", address)
    )


def gc(
    run: RunFolder,
    delete: Annotated[bool, typer.Option("--delete", help="remove what is listed")] = False,
    older_than_hours: Annotated[
        float, typer.Option(min=1, help="younger files may be some running command's")
    ] = 24,
    abandoned: Annotated[
        bool,
        typer.Option(
            "--abandoned",
            help="also files of shards and views not done yet; only if no command works on the run",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the files that no commit, snapshot or view names; remove them with --delete."""
    from shards.run.run import Run
    from shards.run.verify.garbage import find_garbage, remove_garbage

    opened = Run.open(run)
    garbage = find_garbage(opened, older_than_hours * HOUR_S, abandoned)
    if delete:
        remove_garbage(opened, garbage.old)
    if as_json:
        print(json.dumps(_garbage_record(opened, garbage, delete, older_than_hours)))
    else:
        _print_garbage(garbage, delete, older_than_hours)


def _verify(store: "Store", as_json: bool, on_ray: bool, address: str | None) -> int:
    from flows.cli.display.progress import watch_shards
    from shards.run.run import Run
    from shards.run.verify.run import verify_run

    run = Run.read(store)
    with watch_shards("shards checked") as report:
        if on_ray:
            from flows.stages.verify import verify_on_ray

            checked = verify_on_ray(run, address, report)
        else:
            checked = verify_run(run, report)
    problems = [str(problem) for problem in checked.problems]
    if as_json:
        record = dataclasses.asdict(checked) | {"run": run.store.url(), "problems": problems}
        print(json.dumps(record))
        return 1 if problems else 0
    _print_lines(problems)
    aside = f", {len(checked.quarantined)} quarantined" if checked.quarantined else ""
    views = f", {number_of(len(checked.views), 'view')}" if checked.views else ""
    views += f", {number_of(len(checked.scores), 'set')} of scores" if checked.scores else ""
    wrong = f"{len(problems)} problem{'s'[: len(problems) != 1]}"
    print(
        f"{wrong} in {number_of(checked.committed, 'committed shard')}"
        f"{views}, {number_of(len(checked.pending), 'shard')} pending{aside}"
    )
    if problems:
        print("capfilt verify RUN --repair mends what it can, and says what is left to do")
    return 1 if problems else 0


def _repair(store: "Store", as_json: bool) -> int:
    from flows.cli.display.progress import watch_shards
    from shards.run.repair import repair

    with watch_shards("shards checked") as report:
        done = repair(store, report)
    if as_json:
        record = {
            "actions": done.actions,
            "clean_again": done.redo,
            "judge_again": done.judge_again,
            "score_again": done.score_again,
            "waiting": done.waiting,
            "begun_with": done.begun_with,
            "begin_again": done.begin_again,
            "run": store.url(),
        }
        print(json.dumps(record))
    else:
        _print_lines(done.actions)
        _print_lines(_what_is_left(done))
    return 0 if done.whole else 1


def _what_is_left(done: "Repair") -> Iterator[str]:
    if done.redo:
        shards = number_of(len(done.redo), "shard")
        yield f"{shards} must be done again: run `capfilt clean` as before"
    if done.begun_with:
        yield f"{', '.join(done.begun_with)}: run `capfilt clean` as before, which writes it again"
    if done.waiting:
        yield (
            f"views that wait for it: {', '.join(done.waiting)}; afterwards run "
            "`capfilt verify RUN --repair` again"
        )
    if done.score_again:
        yield f"scores to make again, by the same command: {', '.join(done.score_again)}"
    if done.judge_again:
        yield f"views to make again, by the same command: {', '.join(done.judge_again)}"
    if done.begin_again:
        yield (
            "what the run was begun with is to be written again, and nothing else was looked at: "
            "run `capfilt clean` as before, then `capfilt verify RUN --repair` again"
        )
    if done.whole:
        yield "all is whole" if done.actions else "all is whole; there was nothing to mend"


def _garbage_record(
    run: "Run", garbage: "Garbage", deleted: bool, older_than_hours: float
) -> dict[str, object]:
    return {
        "run": run.store.url(),
        "deleted": deleted,
        "older_than_hours": older_than_hours,
        **_sums(garbage.old),
        "kinds": {kind: _sums(some) for kind, some in _by_kind(garbage.old).items()},
        "names": [one.name for one in garbage.old],
        "young": _sums(garbage.young),
        "unfinished": _sums(garbage.unfinished),
        "unknown": len(garbage.unknown),
    }


def _print_garbage(garbage: "Garbage", deleted: bool, older_than_hours: float) -> None:
    for kind, some in _by_kind(garbage.old).items():
        oldest_h = max(one.age_s or 0 for one in some) / HOUR_S
        print(f"{kind}: {len(some)}, {size(_bytes(some))}, up to {oldest_h:.0f} h old")
        _print_lines(f"  {one.name}" for one in some[:NAMED_AT_MOST])
        if len(some) > NAMED_AT_MOST:
            print(f"  and {len(some) - NAMED_AT_MOST} more")
    done = "removed" if deleted else "to remove"
    print(f"{done}: {len(garbage.old)}, {size(_bytes(garbage.old))}")
    if garbage.young:
        print(f"younger than {older_than_hours:g} h, and left alone: {len(garbage.young)}")
    if garbage.unfinished:
        print(
            "of shards or views that are not done yet, and left alone: "
            f"{len(garbage.unfinished)}. Finish them (`capfilt clean`, `capfilt judge`), or, if no "
            "command works on this run, add --abandoned"
        )
    if garbage.unknown:
        print(f"{number_of(len(garbage.unknown), 'file')} unknown, and left alone:")
        _print_lines(f"  {name}" for name in garbage.unknown[:NAMED_AT_MOST])
    if garbage.old and not deleted:
        print("this was a dry run; --delete removes them")


def _by_kind(leftovers: "Sequence[Leftover]") -> dict[str, "list[Leftover]"]:
    kinds: dict[str, list[Leftover]] = {}
    for one in leftovers:
        kinds.setdefault(one.kind, []).append(one)
    return kinds


def _sums(leftovers: "Sequence[Leftover]") -> dict[str, int]:
    return {"count": len(leftovers), "size_bytes": _bytes(leftovers)}


def _bytes(leftovers: "Sequence[Leftover]") -> int:
    return sum(one.size_bytes for one in leftovers)


def _print_lines(lines: Iterable[str]) -> None:
    """Print what may hold names from anywhere: nothing in it moves a cursor."""
    for line in lines:
        print(visible(line))
