"""The demo: make a small world, clean it with the real command, and compare with the truth.

    python scripts/demo.py [FOLDER] [-- FLAGS of capfilt clean]

FOLDER (default: demo) is made afresh each time; what this script did not make is left alone.
"""

import io
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import duckdb
import typer

from pipeline.toy.world import ToyWorldConfig, write_toy_world

RECIPE = Path(__file__).resolve().parents[1] / "flows" / "recipes" / "clean" / "demo.yaml"
WORLD = ToyWorldConfig(samples=400, samples_per_shard=50, noise=0.4, seed=7, kinds=4)
SPOILED = {"empty": b"", "not-a-picture": b"<html>404</html>", "cut-off": b"\x89PNG\r\n\x1a\n\0\0"}
MARK, MADE = ".made-by-capfilt-demo", ("input", "run")

# The world's sidecars know the truth; a run keeps them, and never looks.
JUDGED = """
    SELECT keep, itm, text, written, NOT (meta->'$.toy.is_noisy')::BOOL AS is_true
    FROM '{run}/data/texts/*.parquet' JOIN '{run}/data/decisions/*.parquet'
        USING (shard, index, text_no) JOIN '{run}/data/samples/*.parquet' USING (shard, index)
    JOIN (SELECT shard, index, text AS written FROM '{run}/data/texts/*.parquet' WHERE text_no = 1)
        USING (shard, index) WHERE text_no = 0 AND meta IS NOT NULL
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
    folder: Path = typer.Argument(Path("demo")),
    flags: list[str] = typer.Argument(None, help="of `capfilt clean`, after --"),
) -> None:
    """Clean a small made-up world, from nothing; end with the exit code of `capfilt clean`."""
    if refusal := start_afresh(folder):
        print(f"demo: {refusal}", file=sys.stderr)
        sys.exit(2)
    source, run = folder / "input", folder / "run"
    make_input(source)
    capfilt = relative(Path(sys.executable).with_name("capfilt"))
    command = [capfilt, "clean", relative(RECIPE), "--input", str(source), "--output", str(run)]
    command += flags or []
    print(f"$ {shlex.join(command)}\n", flush=True)
    started = time.monotonic()
    code = subprocess.run(command, check=False).returncode
    print(f"capfilt clean ended with exit code {code} after {time.monotonic() - started:.0f} s.")
    if code == 0:
        compare(run)
        print(NEXT.format(run=run, capfilt=capfilt))
    sys.exit(code)


def start_afresh(folder: Path) -> str | None:
    """Empty the folder of an earlier demo's work; return why not, if it is not the demo's."""
    if folder.exists() and not folder.is_dir():
        return f"{folder} is not a folder; give another name"
    mark = folder / MARK
    if not mark.exists() and folder.exists() and any(folder.iterdir()):
        return f"{folder} is not empty, and no demo made it; give a new or empty folder"
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()
    for earlier in (folder / name for name in MADE):
        if earlier.exists():
            shutil.rmtree(earlier)
    return None


def make_input(folder: Path) -> None:
    """Write the world, and one shard of pictures that no one can read."""
    write_toy_world(folder, WORLD)
    with tarfile.open(folder / "spoiled.tar", "w") as tar:
        for key, content in SPOILED.items():
            for name, data in ((f"{key}.png", content), (f"{key}.txt", b"a red ring")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
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
    from_here = os.path.relpath(path)
    return str(path) if from_here.startswith("..") else from_here


if __name__ == "__main__":
    typer.run(main)
