"""What a check of a run finds wrong."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as the run says; `place` is a file's name, or the run's."""

    place: str
    what: str
    expected: str | None = None
    found: str | None = None

    def __str__(self) -> str:
        """Say it in one line."""
        difference = "" if self.expected is None else f": expected {self.expected}"
        return f"{self.place}: {self.what}{difference}" + (
            "" if self.found is None else f", found {self.found}"
        )
