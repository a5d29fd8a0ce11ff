"""The demo: make a small world, clean it with the real command, and compare with the truth.

    python scripts/demo.py [FOLDER] [-- FLAGS of capfilt clean]

FOLDER (default: demo) is made afresh each time; what this script did not make is left alone.
"""

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import typer
import webdataset as wds

from pipeline.toy.world import ToyWorldConfig, write_toy_world

RECIPE = Path(__file__).resolve().parents[1] / "flows" / "recipes" / "clean" / "demo.yaml"
WORLD = ToyWorldConfig(samples=400, samples_per_shard=50, noise=0.4, seed=7, kinds=4)
SPOILED = {"empty": b"", "not-a-picture": b"<html>404</html>", "cut-off": b"\x89PNG\r\n\x1a\n\0\0"}
MARK, MADE = ".made-by-capfilt-demo", ("input", "run")

# The world's sidecars know the truth; a run keeps them, and never looks.
JUDGED = """
    SELECT keep, web.itm, web.text, synthetic.text, NOT (meta->'$.toy.is_noisy')::BOOL AS is_true
    FROM '{run}/data/texts/*.parquet' AS web JOIN '{run}/data/decisions/*.parquet'
        USING (shard, index, text_no) JOIN '{run}/data/samples/*.parquet' USING (shard, index)
    JOIN '{run}/data/texts/*.parquet' AS synthetic USING (shard, index)
    WHERE web.text_no = 0 AND synthetic.text_no = 1 AND meta IS NOT NULL
"""
NEXT = """
The clean shards and tables are in {run}. Next, to type yourself:

  {capfilt} report {run}          # a page to open in a browser
  {capfilt} judge {run} --name strict --threshold web=0.7 --keep-fraction synthetic=0.3
  {capfilt} stats {run} --view strict --against own
  {capfilt} stats {run} --sql "SELECT origin, itm, keep, text FROM texts JOIN decisions USING (shard, index, text_no) LIMIT 10"
  {capfilt} verify {run}
"""  # noqa: E501 - lines to copy


def main(
    folder: Path = typer.Argument(Path("demo"), file_okay=False),
    flags: list[str] = typer.Argument([], help="of `capfilt clean`, after --"),
) -> None:
    """Clean a small made-up world, from nothing; end with the exit code of `capfilt clean`."""
    start_afresh(folder)
    source, run = folder / "input", folder / "run"
    make_input(source)
    capfilt = relative(Path(sys.executable).with_name("capfilt"))
    command = [capfilt, "clean", relative(RECIPE), "--input", source, "--output", run, *flags]
    print(f"$ {shlex.join(map(str, command))}\n", flush=True)
    started = time.monotonic()
    code = subprocess.run(command, check=False).returncode
    print(f"capfilt clean ended with exit code {code} after {time.monotonic() - started:.0f} s.")
    if code == 0:
        compare(run)
        print(NEXT.format(run=run, capfilt=capfilt))
    sys.exit(code)


def start_afresh(folder: Path) -> None:
    """Empty the folder of an earlier demo's work; BadParameter if it is not the demo's."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / MARK
    if not mark.exists() and any(folder.iterdir()):
        raise typer.BadParameter(f"{folder} holds what no demo made; give a new or empty folder")
    mark.touch()
    for earlier in (folder / name for name in MADE):
        if earlier.exists():
            shutil.rmtree(earlier)


def make_input(folder: Path) -> None:
    """Write the world, and one shard of pictures that no one can read."""
    write_toy_world(folder, WORLD)
    with wds.TarWriter(str(folder / "spoiled.tar"), mtime=0) as tar:
        for key, content in SPOILED.items():
            tar.write({"__key__": key, "png": content, "txt": "a red ring"})
    noisy, spoiled = f"{WORLD.noise:.0%} of them with a wrong text", f"{len(SPOILED)} spoiled ones"
    print(f"{folder}: {WORLD.samples} pictures of coloured shapes, {noisy}; and {spoiled}.")


def compare(run: Path) -> None:
    """Print how well the filter told true web texts from wrong ones, and a few of each."""
    judged = duckdb.sql(JUDGED.format(run=run))
    counts = judged.aggregate("count_if(keep AND is_true), count_if(keep), count_if(is_true)")
    right, kept, true = counts.fetchall()[0]
    print(
        f"\nOf the web texts {true} are true; the filter kept {kept}, of which {right} are true: "
        f"precision {right / max(kept, 1):.2f}, recall {right / max(true, 1):.2f}."
    )
    for keep, what in ((True, "kept"), (False, "dropped")):
        for _, itm, text, written, _ in judged.filter(f"keep = {keep}").limit(3).fetchall():
            print(f"  {what:8}{itm:.2f}  {text}\n    written by the captioner: {written}")


def relative(path: Path) -> str:
    """Write a path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


if __name__ == "__main__":
    typer.run(main)
