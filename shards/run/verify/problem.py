"""What a check of a run finds wrong."""

from dataclasses import dataclass

from shards.errors import DamagedFile


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as the run says; `where` is a file's name, or the run's."""

    where: str
    what: str
    expected: str | None = None
    actual: str | None = None

    @classmethod
    def of(cls, where: str, error: DamagedFile) -> "Problem":
        """Make the problem of a file that could not be read."""
        return cls(where, "is damaged", error.expected, error.actual)

    @property
    def found(self) -> str:
        """What is wrong, without where."""
        difference = "" if self.expected is None else f": expected {self.expected}"
        return self.what + difference + ("" if self.actual is None else f", found {self.actual}")

    def __str__(self) -> str:
        """Write it in one line."""
        return f"{self.where}: {self.found}"
