"""YAML is what it is elsewhere, but for what takes long or much memory to read."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from shards.files.bounded_yaml import MOST_DEPTH, MOST_VALUES, BoundedYamlError, parse_yaml

RECIPES = sorted((Path(__file__).parents[3] / "flows" / "recipes").rglob("*.yaml"))


def laughs(levels: int, width: int = 10) -> str:
    """Stand for width ** levels values."""
    lines = [f"a0: &a0 [{', '.join(['x'] * width)}]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]")
    return "\n".join(lines)


def test_there_are_recipes() -> None:
    assert len(RECIPES) > 3


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_recipes_are_read_as_ever(path: Path) -> None:
    assert parse_yaml(path.read_text()) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: &x {b: 1, c: [1, 2]}\nd: *x\ne: {<<: *x, b: 2}\n",
        "a: 0x7fffffffffffffff\nb: -9223372036854775807\nc: 1e300\nd: .nan\n",
        "d: 2001-12-14t21:59:43.10-05:00\n",
        "x: " + "[" * (MOST_DEPTH - 1) + "]" * (MOST_DEPTH - 1),
        '"\\udcff"',  # a byte of a file's name that is not UTF-8
        laughs(4),
        f"[{'1,' * (MOST_VALUES - 1)}]",  # with the list itself
    ],
)
def test_lawful_yaml_is_read_as_ever(text: str) -> None:
    assert repr(parse_yaml(text)) == repr(yaml.safe_load(text))


HOSTILE = {
    "brackets": ("[" * 50_000, f"deeper than {MOST_DEPTH}"),
    "closed brackets": ("[" * 50_000 + "]" * 50_000, f"deeper than {MOST_DEPTH}"),
    "braces": ("{a: " * 50_000, f"deeper than {MOST_DEPTH}"),
    "dashes": ("- " * 50_000, f"deeper than {MOST_DEPTH}"),
    "keys": ("? " * 50_000, f"deeper than {MOST_DEPTH}"),
    "laughs": (laughs(10), "values, aliases written out"),
    "laughing keys": (laughs(10).replace("[", "{").replace("]", "}"), "values, aliases written"),
    "merges": (
        "\n".join([f"a0: &a0 {{{', '.join(f'k{n}: 1' for n in range(1000))}}}"])
        + "".join(f"\na{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 9)),
        "values, aliases written out",
    ),
    "items": (f"[{'1,' * MOST_VALUES}]", "values, aliases written out"),
    "long": ("x" * 2_000_000, "characters, at most"),
    "itself": ("a: &a [*a]", r"the alias \*a lies in what it stands for"),
    "digits": ("9" * 10_000, "a value cannot be read"),
    "hexadecimal digits": ("0x" + "f" * 10_000, "a whole number of 40,000 bits"),
    "base 60": ("1" + ":59" * 3_000, "a whole number of"),
    "date": ("2001-99-99", "a value cannot be read: month"),
    "flag": ("!!bool perhaps", "a value cannot be read"),
    "no number": ("!!int ''", "a value cannot be read"),
    "no date": ("!!timestamp soon", "a value cannot be read"),
    "NUL": ('a: "x\\0y"', "holds a NUL"),
    "NUL in a key": ('"x\\0y": 1', "holds a NUL"),
    "half a character": ('a: "\\ud800"', "half a character"),
    "small, of brackets": ("[" * 9_000, f"deeper than {MOST_DEPTH}"),
    "small, of items": (f"[{'1,' * 8_100}", "expected"),
    "object": ("!!python/object/apply:os.system [true]", "could not determine a constructor"),
    "unknown alias": ("*a", "undefined alias"),
    "torn": ("a: [1, 2", "expected"),
    "torn, and large": (f"[{'1,' * 30_000}", "did not find expected"),
    "control character": ("a: \x1b", "unacceptable|control characters"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_is_one_line(name: str) -> None:
    text, message = HOSTILE[name]
    with pytest.raises(BoundedYamlError, match=message) as refused:
        parse_yaml(text)
    said = str(refused.value)
    assert "\n" not in said
    assert len(said) < 400


MEASURED = """
import resource, sys, time
from shards.files.bounded_yaml import BoundedYamlError, parse_yaml
from tests.shards.files.test_bounded_yaml import HOSTILE
before_kib, slowest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0.0
for name, (text, _) in HOSTILE.items():
    start = time.process_time()
    try:
        parse_yaml(text)
    except BoundedYamlError:
        pass
    slowest = max(slowest, time.process_time() - start)
after_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(slowest, (after_kib - before_kib) / 1024)
"""


def test_none_takes_long_or_much_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURED],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
        timeout=120,
    )
    slowest_s, grown_mb = map(float, done.stdout.split())
    assert slowest_s < 1
    assert grown_mb < 100
