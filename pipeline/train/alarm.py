"""Alarms of a training: what its numbers say when it learns nothing, or goes to pieces.

BLIP's users met all three: a matching loss that stays at 0.63 for weeks, NaN, and a temperature at
its bound (BLIP issues 200 and 152, ALBEF issue 18).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from models.training.contrast import TEMPERATURES
from shards.errors import CapfiltError

# of the head that says "1 match in 3 pairs" to everything: -(1/3 ln 1/3 + 2/3 ln 2/3)
ITM_PRIOR = math.log(3) - 2 / 3 * math.log(2)
_NEAR_PRIOR = 0.01
_NEAR_BOUND = 1.05  # times the bound
_WEIGHT = 0.02  # of a step in the moving average
_FALL, _FALL_STEPS = 0.5, 200  # a temperature so far below its mean over so many steps


class TrainingDiverged(CapfiltError, RuntimeError):  # noqa: N818 - reads as what happened
    """A loss that is no number: what comes after it would be worthless."""


@dataclass(slots=True)
class Alarms:
    """Looks at each step's numbers; each kind of alarm is raised once.

    `itm`, the moving average, `raised`, the alarms so far, and `log_temperature`, a moving average,
    too, are all that a restart needs.
    """

    patience_samples: int
    itm: float | None = None
    raised: list[str] = field(default_factory=list)
    log_temperature: float | None = None

    def check(self, step: int, samples: int, numbers: Mapping[str, float]) -> list[str]:
        """Return what is newly wrong after a step; TrainingDiverged where a loss is not finite."""
        broken = [name for name, value in numbers.items() if not math.isfinite(value)]
        if broken:
            raise TrainingDiverged(
                f"step {step}: {', '.join(broken)} is not finite; {dict(numbers)}. What was saved "
                "before is whole. Lower rate.highest, lengthen rate.warmup_steps, or clip harder"
            )
        alarms = [*self._matching(samples, numbers), *self._temperature(numbers)]
        alarms += self._fall(numbers)
        raised = {_kind(text) for text in self.raised}
        fresh = [text for text in alarms if _kind(text) not in raised]
        self.raised += fresh
        return fresh

    def _matching(self, samples: int, numbers: Mapping[str, float]) -> list[str]:
        if "itm" not in numbers:
            return []
        before = numbers["itm"] if self.itm is None else self.itm
        self.itm = before + _WEIGHT * (numbers["itm"] - before)
        if samples < self.patience_samples or abs(self.itm - ITM_PRIOR) > _NEAR_PRIOR:
            return []
        return [
            f"itm at its prior: after {samples} samples the mean loss is {self.itm:.4f}, and a "
            f"head that has learned nothing has {ITM_PRIOR:.4f}. More samples, a higher rate or "
            "larger batches may help; cleaner pairs do"
        ]

    def _temperature(self, numbers: Mapping[str, float]) -> list[str]:
        value = numbers.get("temperature")
        if value is None:
            return []
        lowest, highest = TEMPERATURES
        if lowest * _NEAR_BOUND < value < highest / _NEAR_BOUND:
            return []
        return [
            f"temperature at its bound: {value:.4f}, held in {lowest} to {highest}; a contrast at "
            "the lower one has collapsed onto single pairs. Lower rate.highest"
        ]

    def _fall(self, numbers: Mapping[str, float]) -> list[str]:
        """Warn long before the bound: ITM's negatives grow as hard as the temperature falls."""
        value = numbers.get("temperature")
        if value is None or value <= 0:
            return []
        now = math.log(value)
        before = now if self.log_temperature is None else self.log_temperature
        self.log_temperature = before + (now - before) / _FALL_STEPS
        mean = math.exp(self.log_temperature)
        if value > _FALL * mean:
            return []
        return [
            f"temperature falls fast: {value:.4f}, and {mean:.4f} in the moving mean of "
            f"{_FALL_STEPS} steps; negatives of ITM grow hard before it has learned anything. "
            "Lower rate.temperature (0.05 lets it learn at a twentieth of the rate) or "
            "rate.highest, or lengthen rate.warmup_steps"
        ]


def _kind(alarm: str) -> str:
    return alarm.split(":")[0]
