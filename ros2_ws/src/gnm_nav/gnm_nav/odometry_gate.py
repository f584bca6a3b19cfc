"""Which odometry can be used live, judged by the node's clock."""

from __future__ import annotations

import math
from collections import Counter

from gnm_nav.planar_pose import StampedPose

_FUTURE_TOLERANCE_S = 0.1
_MAX_AGE_S = 2.0
"""Older than this it is of another clock: nobody buffers odometry for so long."""
_SET_BACK_S = 0.3
"""A stamp that goes back by more begins anew; by less, it was overtaken on the way."""
_TOLD_S = 2.0


class OdometryGate:
    """Refuses what is no measurement of now; what was refused is not remembered.

    Attributes:
        refused: code → how many messages.
    """

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        self.reset()

    def reset(self) -> None:
        """Forget what came before, and count anew."""
        self.refused.clear()
        self._newest_s = -math.inf
        self._problem = ""
        self._problem_s = -math.inf

    def accept(self, pose: StampedPose, now_s: float, steady_s: float) -> bool:
        """Whether a pose can be used.

        Args:
            pose: as it arrived.
            now_s: the node's clock.
            steady_s: the steady clock.
        """
        code, problem = self._judge(pose, now_s)
        if not code:
            self._newest_s = pose[0]
            return True
        self.refused[code] += 1
        self._problem, self._problem_s = f"odometry is not used: {problem}", steady_s
        return False

    def problem(self, steady_s: float) -> str:
        """Why the odometry of the last two seconds was refused; empty: it was not."""
        return self._problem if steady_s - self._problem_s < _TOLD_S else ""

    def _judge(self, pose: StampedPose, now_s: float) -> tuple[str, str]:
        stamp_s, age_s = pose[0], now_s - pose[0]
        if not all(map(math.isfinite, pose)):
            return "not_finite", (
                "found a position that is no number, or a quaternion that is not of length 1"
            )
        if age_s > _MAX_AGE_S:
            found = "no stamp (0)" if stamp_s == 0.0 else f"a stamp {age_s:.2f} s old"
            return "stale", f"found {found}, expected at most {_MAX_AGE_S:g} s"
        if -age_s > _FUTURE_TOLERANCE_S:
            return "future", (
                f"found a stamp {-age_s:.2f} s ahead of the clock, expected at most "
                f"{_FUTURE_TOLERANCE_S:g} s"
            )
        if self._newest_s - _SET_BACK_S < stamp_s <= self._newest_s:
            return "not_newer", f"its stamp, {stamp_s:.3f}, is not newer than the one before"
        return "", ""
