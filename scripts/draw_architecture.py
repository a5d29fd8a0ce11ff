"""Draw docs/architecture.svg: the rooms of each package, and who imports whom, as the code has it.

    python scripts/draw_architecture.py [--check]

A room is a folder or file just below a package; it stands above all that it imports. `--check`
ends with 1 where the picture is not that of the code.
"""

import argparse
import sys
from pathlib import Path

import grimp

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "architecture.svg"
WIDTH, ROOM, GAP, ROW, TITLE, PAD = 1000, 30, 12, 74, 34, 14
STYLE = """
:root { --ink: #1f2328; --soft: #59636e; --line: #818b98; --box: #ffffff; --band: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9aa4af; --line: #768390; --box: #22272e; --band: #1c2128; } }
text { fill: var(--ink); font: 14px system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; }
.room { fill: var(--box); stroke: var(--line); } .band { fill: var(--band); }
.middle { text-anchor: middle; } .name { font-weight: 600; } .soft { fill: var(--soft); }
.arrow { fill: none; stroke: var(--line); stroke-width: 1.2; marker-end: url(#head); }
#head path { fill: var(--line); }"""
FRAME = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"
  aria-label="Rooms and imports of each package">
<style>{style}</style>
<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="6" markerHeight="6"
  orient="auto"><path d="M0 0 10 5 0 10z"/></marker></defs>
{bands}</svg>
"""
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
    """Sort rooms into rows, each below all that import it; ValueError for a circle."""
    rows, left = [], dict(imports)
    while left:
        imported = set().union(*left.values())
        row = [room for room in left if room not in imported]
        if not row:
            raise ValueError(f"imports in a circle among {', '.join(left)}")
        rows.append(row)
        left = {room: others for room, others in left.items() if room not in row}
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
    return FRAME.format(width=WIDTH, height=top, style=STYLE, bands="".join(bands))


def band(package: str, imports: Imports, left: int, top: int, width: int) -> tuple[str, int]:
    """Draw one package; returns where it ends."""
    rows, count = rows_of(imports), sum(map(len, imports.values()))
    height = TITLE + ROW * (len(rows) - 1) + ROOM + PAD
    about = f"{len(imports)} rooms, {count} arrows, no circle"
    centres: dict[str, tuple[float, int]] = {}
    for number, row in enumerate(rows):
        share = (width - 2 * PAD) / len(row)
        for at, room in enumerate(row):
            centres[room] = (left + PAD + share * (at + 0.5), top + TITLE + ROW * number)
    drawn = [
        f'<rect class="band" x="{left}" y="{top}" width="{width}" height="{height}" rx="8"/>',
        f'<text class="name" x="{left + PAD}" y="{top + 21}">{package}/</text>',
        f'<text class="soft" x="{left + PAD + 80}" y="{top + 21}">{about}</text>',
        *(arrow(centres[room], centres[to]) for room in imports for to in sorted(imports[room])),
        *(box(room, *centre) for room, centre in centres.items()),
    ]
    return "\n".join(drawn) + "\n", top + height


def box(room: str, x: float, y: int) -> str:
    """Draw one room around its name."""
    wide = 9 * len(room) + 20
    shape = f'x="{x - wide / 2:.0f}" y="{y}" width="{wide}" height="{ROOM}" rx="5"'
    return (
        f'<rect class="room" {shape}/><text class="middle" x="{x:.0f}" y="{y + 20}">{room}</text>'
    )


def arrow(start: tuple[float, int], end: tuple[float, int]) -> str:
    """Draw one import, from a room down to another."""
    (x, y), (to_x, to_y) = start, end
    y, middle = y + ROOM, (y + ROOM + to_y) / 2
    curve = f"M{x:.0f} {y} C{x:.0f} {middle:.0f} {to_x:.0f} {middle:.0f} {to_x:.0f} {to_y}"
    return f'<path class="arrow" d="{curve}"/>'


if __name__ == "__main__":
    sys.exit(main())
