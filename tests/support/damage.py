"""Damage to one file of a run, a random byte of it or all, and what the commands make of it.

It is either told by `verify`, or harmless: tables, clean tars and statistics are as before. No
command may end in an error that nobody expected; what `verify --repair` and the same `clean` bring
back is the unbroken run.
"""

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.driving import InProcess, table

TABLES = ("samples", "texts", "decisions")
VIEW = "most"
COMMANDS = 9  # that may meet the damage, beside `verify`
JUDGE = (f"--name={VIEW}", "--threshold=synthetic=0", "--write-shards")


@dataclass(frozen=True)
class Flip:
    """One byte of one file, changed by an exclusive or."""

    name: str
    position: int
    mask: int

    def strike(self, data: bytes) -> bytes:
        """Change the byte."""
        changed = bytearray(data)
        changed[self.position] ^= self.mask
        return bytes(changed)


@dataclass(frozen=True)
class Change:
    """Another content for one file, or none."""

    name: str
    change: Callable[[bytes], bytes | None]

    def strike(self, data: bytes) -> bytes | None:
        """Change the content."""
        return self.change(data)


@dataclass
class FlipTally:
    """How many flips were told by `verify`, and how many were harmless, by kind of file."""

    told: Counter[str] = field(default_factory=Counter)
    harmless: Counter[str] = field(default_factory=Counter)


class FlippedRun:
    """A whole run with a view, that is damaged and mended again and again."""

    def __init__(self, capfilt: InProcess, run: Path, clean: Sequence[str], sample: str) -> None:
        self._capfilt, self._run, self._clean, self._sample = capfilt, run, clean, sample
        self._whole = {
            str(path.relative_to(run)): path.read_bytes()
            for path in sorted(run.rglob("*"))
            if path.is_file()
        }
        self._truth = self._content()

    def draw(self, dice: random.Random) -> Flip:
        """Choose a file, then a byte of it, then other bits for that: one, or some."""
        name = dice.choice(sorted(name for name, data in self._whole.items() if data))
        mask = 1 << dice.randrange(8) if dice.random() < 0.75 else dice.randrange(1, 256)
        return Flip(name, dice.randrange(len(self._whole[name])), mask)

    def name(self, start: str) -> str:
        """Return the first file whose name starts so."""
        return next((name for name in sorted(self._whole) if name.startswith(start)), start)

    def try_damage(self, damage: Flip | Change, commands: Sequence[int]) -> bool:
        """Strike, look, mend, and compare; raises AssertionError, or what a command raises.

        Of the other commands, those of these numbers are tried on the damaged run. Returns whether
        `verify` told the damage.
        """
        self._put_back(damage)
        told = self._do("verify", self._run)
        if told:
            assert told in (1, 2)
        else:
            assert self._content() == self._truth, "harm that verify does not tell"
        self._use(commands)
        self._put_back(damage)
        self._mend()
        assert self._content() == self._truth, "what was mended is another run"
        return told != 0

    def try_clean(self, damage: Change) -> None:
        """Strike, and see that the same `clean` command alone leaves the whole run."""
        self._put_back(damage)
        assert self._do("verify", self._run) == 1
        assert self._do(*self._clean) == 0
        last = self._capfilt.run("verify", self._run)
        assert last.returncode == 0, last.stdout
        assert self._content() == self._truth

    def _use(self, numbers: Sequence[int]) -> None:
        commands: list[tuple[str | Path, ...]] = [
            ("stats", self._run, "--json"),
            ("stats", self._run, f"--view={VIEW}", "--against=own", "--json"),
            ("stats", self._run, "--sql=SELECT * FROM samples JOIN texts USING (shard, index)"),
            ("report", self._run, "--gallery=2", "--explain=0"),
            ("explain", self._run, self._sample),
            ("judge", self._run, "--name=probe", "--threshold=web=0.4"),
            ("export", self._run, f"--to={self._run.parent / 'exported'}"),
            ("gc", self._run, "--delete"),
            tuple(self._clean),  # without repair before; it may mend all by itself
        ]
        for number in numbers:
            done = self._capfilt.run(*commands[number])
            assert done.returncode in (0, 1, 2, 3), commands[number]
            assert len(done.stderr) < 4_000, done.stderr
        shutil.rmtree(self._run.parent / "exported", ignore_errors=True)

    def _mend(self) -> None:
        """Repair, and do what it says, which may take two rounds."""
        for _ in range(3):
            done = self._capfilt.run("verify", self._run, "--repair", "--json")
            if done.returncode == 0:
                break
            if self._do(*self._clean) == 0:
                self._do("judge", self._run, *JUDGE)
        last = self._capfilt.run("verify", self._run)
        assert last.returncode == 0, last.stdout + last.stderr

    def _content(self) -> dict[str, Any]:
        """Collect what must not change: tables, clean tars, statistics, the snapshot's name."""
        stats = [
            self._capfilt.run("stats", self._run, "--json", *more)
            for more in ([], ["--view", VIEW])
        ]
        return {
            "tables": {name: table(self._run, name) for name in TABLES},
            "tars": [Path(line).read_bytes() for line in self._clean_list("")],
            "view's tars": [Path(line).read_bytes() for line in self._clean_list(f"views/{VIEW}/")],
            "statistics": [json.loads(done.stdout) for done in stats],
            "snapshot": json.loads((self._run / "snapshot.json").read_bytes())["id"],
        }

    def _clean_list(self, folder: str) -> list[str]:
        return (self._run / f"{folder}clean.txt").read_text().splitlines()

    def _put_back(self, damage: Flip | Change) -> None:
        """Make the run whole again, but for the damage."""
        there = {str(p.relative_to(self._run)) for p in self._run.rglob("*") if p.is_file()}
        for name in there - self._whole.keys():
            (self._run / name).unlink()
        struck = {damage.name: damage.strike(self._whole.get(damage.name, b""))}
        for name, wanted in (self._whole | struck).items():
            path = self._run / name
            if wanted is None:
                path.unlink(missing_ok=True)
            elif not path.exists() or path.read_bytes() != wanted:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(wanted)

    def _do(self, *arguments: str | Path) -> int:
        return self._capfilt.run(*arguments).returncode
