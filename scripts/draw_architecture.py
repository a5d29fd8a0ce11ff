"""Draw docs/architecture.svg: the rooms of each package, and who imports whom, as the code has it.

    python scripts/draw_architecture.py [--check]

A room is a folder or file just below a package; it stands above all that it imports. `--check`
ends with 1 where the picture is not that of the code.
"""

import argparse
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from string import Template

import grimp

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "architecture.svg"
FRAME = Template(Path(__file__).with_name("architecture.svg.template").read_text(encoding="utf-8"))
WIDTH, ROOM, GAP, ROW, TITLE, PAD = 1000, 30, 12, 74, 34, 14
Imports = dict[str, set[str]]


def main() -> int:
    """Draw, or compare."""
    parser = argparse.ArgumentParser(description="Draw the rooms and their imports.")
    parser.add_argument("--check", action="store_true", help="compare instead")
    drawn = picture(grimp.build_graph("flows", "pipeline", "models", "shards", cache_dir=None))
    if parser.parse_args().check and PICTURE.read_text(encoding="utf-8") != drawn:
        print(f"{PICTURE} is not that of the code: make picture")
        return 1
    PICTURE.write_text(drawn, encoding="utf-8")
    return 0


def imports_of(graph: grimp.ImportGraph, package: str) -> Imports:
    """Map each room of a package to the rooms of the same package that it imports."""
    rooms: Imports = {name.split(".")[1]: set() for name in graph.find_children(package)}
    for module in graph.find_descendants(package):
        for imported in graph.find_modules_directly_imported_by(module):
            if imported.startswith(f"{package}."):
                rooms[module.split(".")[1]].add(imported.split(".")[1])
    return {room: others - {room} for room, others in sorted(rooms.items())}


def rows_of(imports: Imports) -> list[list[str]]:
    """Sort rooms into rows, each room right above the highest that it imports."""
    rows: list[list[str]] = []
    sorter = TopologicalSorter(imports)
    sorter.prepare()  # CycleError for a circle
    while ready := sorter.get_ready():
        rows.insert(0, sorted(ready))
        sorter.done(*ready)
    return rows


def picture(graph: grimp.ImportGraph) -> str:
    """Draw all packages, from the one that imports all others to those that import none."""
    half = (WIDTH - GAP) // 2
    lowest = [("models", 0, half), ("shards", half + GAP, half)]
    bands, top = [], 0
    for side_by_side in ([("flows", 0, WIDTH)], [("pipeline", 0, WIDTH)], lowest):
        drawn = [
            band(name, imports_of(graph, name), x, top, wide) for name, x, wide in side_by_side
        ]
        bands += [body for body, _ in drawn]
        top = max(bottom for _, bottom in drawn) + GAP
    return FRAME.substitute(width=WIDTH, height=top, bands="".join(bands))


def band(package: str, imports: Imports, left: int, top: int, width: int) -> tuple[str, int]:
    """Draw one package; returns where it ends."""
    rows, count = rows_of(imports), sum(map(len, imports.values()))
    height = TITLE + ROW * (len(rows) - 1) + ROOM + PAD
    about = f"{len(imports)} rooms, {count} arrows, no circle"
    centres: dict[str, tuple[float, int]] = {}
    for number, row in enumerate(rows):
        space = (width - 2 * PAD - sum(map(wide, row))) / len(row)
        edge = left + PAD + space / 2
        for room in row:
            centres[room] = (edge + wide(room) / 2, top + TITLE + ROW * number)
            edge += wide(room) + space
    drawn = [
        f'<rect class="band" x="{left}" y="{top}" width="{width}" height="{height}" rx="8"/>',
        f'<text class="name" x="{left + PAD}" y="{top + 21}">{package}/</text>',
        f'<text class="soft" x="{left + PAD + 80}" y="{top + 21}">{about}</text>',
        *(arrow(centres[room], centres[to]) for room in imports for to in sorted(imports[room])),
        *(box(room, *centre) for room, centre in centres.items()),
    ]
    return "\n".join(drawn) + "\n", top + height


def wide(room: str) -> int:
    """Measure the box around a name, in pixels."""
    return 8 * len(room) + 20


def box(room: str, x: float, y: int) -> str:
    """Draw one room around its name."""
    shape = f'x="{x - wide(room) / 2:.0f}" y="{y}" width="{wide(room)}" height="{ROOM}" rx="5"'
    name = f'<text class="middle" x="{x:.0f}" y="{y + 20}">{room}</text>'
    return f'<rect class="room" {shape}/>{name}'


def arrow(start: tuple[float, int], end: tuple[float, int]) -> str:
    """Draw one import, from a room down to another."""
    (x, y), (to_x, to_y) = start, end
    y, middle = y + ROOM, (y + ROOM + to_y) / 2
    curve = f"M{x:.0f} {y} C{x:.0f} {middle:.0f} {to_x:.0f} {middle:.0f} {to_x:.0f} {to_y}"
    return f'<path class="arrow" d="{curve}"/>'


if __name__ == "__main__":
    sys.exit(main())
