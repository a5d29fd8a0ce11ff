"""`capfilt dedup`: leave out, in a view, what is the same picture many times."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows.cli.options import AsJson, path_option
from pipeline.printable import count, number_of, visible

if TYPE_CHECKING:
    from flows.stages.dedup import DedupRequest

DEDUP_EXAMPLES = """
Examples:

  capfilt dedup RUN

  capfilt dedup RUN --against EVAL_RUN --name uncontaminated

  capfilt dedup RUN --index first.index --similarity 0.97 --name unlike

  capfilt dedup SCREEN_RUN && capfilt clean recipe.yaml --skip SCREEN_RUN:unique
"""
EXCLUDE_EXAMPLES = """
Examples:

  capfilt exclude RUN withdrawn.txt --name published

  capfilt exclude RUN withdrawn.parquet --view unique --name published --write-shards
"""
SIMILARITY = 0.95
DISTANCE = 26  # as pipeline.media.difference_hash has it, which is slow to import


def dedup(
    run: Annotated[str, typer.Argument(metavar="RUN", help="a finished run: folder or URL")],
    name: Annotated[str, typer.Option(help="of the new view: A-Z a-z 0-9 _ -")] = "unique",
    view: Annotated[
        str | None, typer.Option(help="whose kept pictures; default: the run's")
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help="leave out what stands there; may be repeated"),
    ] = None,
    keep: Annotated[
        Literal["largest", "score", "first"],
        typer.Option(help="of the same pictures, the one to keep; score: the best text's"),
    ] = "largest",
    distance: Annotated[
        int, typer.Option(min=0, max=64, help="most bits in which hashes of near ones differ")
    ] = DISTANCE,
    exact: Annotated[
        bool, typer.Option("--exact", help="only pictures with the same bytes")
    ] = False,
    index: Annotated[
        Path | None,
        path_option(help="`capfilt index` of these pictures: leave out what it embeds alike, too"),
    ] = None,
    similarity: Annotated[
        float, typer.Option(min=0.5, max=1, help="least cosine of pictures that are alike")
    ] = SIMILARITY,
    write_shards: Annotated[
        bool, typer.Option("--write-shards", help="write clean tars too, from the input")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Keep one of each picture: a view without exact and near-duplicates. Nothing is deleted.

    A picture that was cropped by more than a few percent, framed or mirrored is another, but for
    an --index, whose model may see the same in it. All groups stand in a Parquet file beside the
    view, and in its report.
    """
    from flows.stages.dedup import DedupRequest
    from pipeline.views.dedup.groups import DedupConfig

    config = DedupConfig(keep, None if exact else distance, None if index is None else similarity)
    request = DedupRequest(name, view, tuple(against or ()), config, write_shards, index)
    done = _dedup(run, request)
    if as_json:
        print(json.dumps(done))
        return
    kinds = ", ".join(f"{count(number)} {kind}" for kind, number in sorted(done["by_kind"].items()))
    print(
        f"kept {count(done['kept'])} of {count(done['kept_before'])}: {count(done['excluded'])} "
        f"left out ({kinds or 'none'}), in {number_of(done['groups'], 'group')}"
    )
    there = "" if done["new"] else ", which was there already"
    print(f"view: {visible(done['view'])}{there}; nothing is deleted")
    print(f"groups: {visible(done['groups_file'])}")


def exclude(
    run: Annotated[str, typer.Argument(metavar="RUN", help="a finished run: folder or URL")],
    list_: Annotated[
        str,
        typer.Argument(metavar="LIST", help="one SHARD/KEY a line, or Parquet: shard, key"),
    ],
    name: Annotated[str, typer.Option(help="of the new view: A-Z a-z 0-9 _ -")],
    view: Annotated[str | None, typer.Option(help="the view it stands on (default: own)")] = None,
    write_shards: Annotated[
        bool, typer.Option("--write-shards", help="write clean tars too, from the input")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Leave samples out, in a view. Excluded, not erased: the run and its tars stay as they are."""
    from flows.stages import dedup as stages
    from shards.run.run import Run

    done = stages.exclude_listed(Run.open(run), stages.ListRequest(name, view, list_, write_shards))
    if done["unknown"]:
        unknown = number_of(done["unknown"], "name")
        print(f"the list has {unknown} of no sample here", file=sys.stderr)
    if as_json:
        print(json.dumps(done))
        return
    print(
        f"kept {count(done['kept'])} of {count(done['kept_before'])}: "
        f"{number_of(done['excluded'], 'sample')} left out in view {visible(done['view'])}. "
        "Excluded, not erased: pictures and texts stay in the run and its input"
    )


def _dedup(run: str, request: "DedupRequest") -> dict[str, Any]:
    from flows.cli.display.progress import watch_samples
    from flows.stages import dedup as stages
    from shards.run.run import Run
    from shards.run.view import open_view

    opened = Run.open(run)
    total = sum(shard.counts.samples_in for shard in open_view(opened, request.view).shards)
    with watch_samples("comparing pictures", total) as progress:
        return stages.dedup(opened, request, progress.add)
