"""Commands that look at a run: `stats` and `verify`."""

import json
from typing import Annotated

import typer

RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="run folder or URL")]


def stats(
    run: RunFolder,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> None:
    """Count a run, finished or not: samples, texts by origin, shards."""
    from shards.run import Run
    from shards.statistics import run_statistics

    opened = Run.open(run)
    found = run_statistics(opened)
    if as_json:
        print(json.dumps(found))
        return
    from flows.cli.display import print_statistics

    print_statistics(opened.store.url(), found)


def verify(
    run: RunFolder,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> None:
    """Recompute every count and hash of a run from its files; exit 1 if anything differs."""
    from shards.run import Run
    from shards.verify import verify_run

    found = verify_run(Run.open(run))
    problems = [str(problem) for problem in found.problems]
    if as_json:
        print(
            json.dumps(
                {
                    "problems": problems,
                    "committed": found.committed,
                    "pending": list(found.pending),
                }
            )
        )
    else:
        for problem in problems:
            print(problem)
        print(
            f"{len(problems)} problems in {found.committed} committed shards, "
            f"{len(found.pending)} shards pending"
        )
    raise typer.Exit(1 if problems else 0)
