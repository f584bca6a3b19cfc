"""Success rates with confidence intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

_Z_95 = 1.959963984540054
"""0.975 quantile of the standard normal distribution."""


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % Wilson score interval of a success probability.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    JASA 22 (1927). Unlike the normal approximation it stays in [0, 1] and is of use at small
    numbers of trials.

    Returns:
        (lower, upper) in [0, 1]; (0, 1) without trials.

    Raises:
        ValueError: not 0 <= successes <= trials.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"successes is {successes}; it must be in 0..trials ({trials})")
    if trials == 0:
        return 0.0, 1.0
    rate = successes / trials
    z2 = _Z_95 * _Z_95
    centre = rate + z2 / (2 * trials)
    spread = _Z_95 * math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials * trials))
    scale = 1 + z2 / trials
    lower = 0.0 if successes == 0 else (centre - spread) / scale
    upper = 1.0 if successes == trials else (centre + spread) / scale
    return lower, upper


@dataclass(frozen=True)
class SuccessRate:
    """Successes of judged trials; episodes whose success is unknown are counted apart."""

    successes: int = 0
    trials: int = 0
    unknown: int = 0

    def with_outcome(self, success: bool | None) -> SuccessRate:
        """The rate after one more episode; None: nobody judged it."""
        if success is None:
            return SuccessRate(self.successes, self.trials, self.unknown + 1)
        return SuccessRate(self.successes + int(success), self.trials + 1, self.unknown)

    @property
    def rate(self) -> float | None:
        """successes / trials, or None without trials."""
        return self.successes / self.trials if self.trials else None

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval."""
        return wilson_interval(self.successes, self.trials)
