"""Decides whether an end-effector command may reach the arm: names, length, values, age."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from widowx_control.bridge_spaces import ACTION_NAMES, ACTION_SPACE, ROBOT

_NEW_ORDER: Final = 3
"""So many commands in a row that are in order among themselves, but before the last one that
passed, come from a clock that went back; fewer are late."""


class GateCode(StrEnum):
    """Outcome of `CommandGate.check`."""

    PASSED = "passed"
    WRONG_NAMES = "wrong_names"
    WRONG_LENGTH = "wrong_length"
    NON_FINITE = "non_finite"
    WRONG_FRAME = "wrong_frame"
    BAD_STEP = "bad_step"
    STALE = "stale"
    LATE = "late"
    FUTURE_STAMP = "future_stamp"
    OUT_OF_ORDER = "out_of_order"


@dataclass(frozen=True)
class GateVerdict:
    """Whether a command passed, and why not."""

    code: GateCode
    reason: str = ""
    action: tuple[float, ...] = ()
    """The values in the order of `ACTION_NAMES`, of a command that passed."""

    @property
    def passed(self) -> bool:
        """Whether the command may be used."""
        return self.code is GateCode.PASSED


class CommandGate:
    """Refuses what must not move the arm, and counts it by code in `counters`."""

    def __init__(
        self,
        max_age_s: float,
        future_tolerance_s: float,
        frame: str,
        max_lateness_s: float,
    ) -> None:
        """Set the limits.

        Args:
            max_age_s: oldest observation of a command that does not say its own limit.
            future_tolerance_s: how far a stamp may be ahead of this machine's clock.
            frame: frame of the deltas; a command without frame passes too.
            max_lateness_s: how long after its time a command may still be executed.
        """
        self._max_age_s = max_age_s
        self._max_lateness_s = max_lateness_s
        self._future_tolerance_s = future_tolerance_s
        self._frame = frame
        self._last_stamp_s = self._last_execute_at_s = -math.inf
        self._last_now_s = -math.inf
        self._late_stamps_s: list[float] = []
        self.counters: Counter[str] = Counter()
        self.notice = ""
        """That a clock went back, once; whoever logs it empties it."""

    def reset(self) -> None:
        """Forget the last stamp (not the counters), e.g. when the controller is activated."""
        self._last_stamp_s = self._last_execute_at_s = self._last_now_s = -math.inf

    def check(
        self,
        names: Sequence[str],
        values: Sequence[float],
        frame: str,
        step_s: float,
        stamp_s: float,
        now_s: float,
        execute_at_s: float | None = None,
        max_observation_age_s: float | None = None,
    ) -> GateVerdict:
        """Judge one command.

        Args:
            names: names of the values, in their order, which may be any.
            values: the command.
            frame: frame_id of the command.
            step_s: time that the motion should take.
            stamp_s: time of the observation that caused the command.
            now_s: present time on the same clock.
            execute_at_s: when the motion should begin, on the same clock; None: at once.
            max_observation_age_s: how old the observation may be, as far as the robot allows it;
                None: not said.
        """
        self._follow_clock(now_s)
        verdict = (
            self._judge_content(names, values, frame, step_s)
            or self._judge_age(stamp_s, now_s, max_observation_age_s)
            or self._judge_time(execute_at_s, now_s)
            or self._judge_order(stamp_s, execute_at_s)
        )
        if verdict is None:
            value_of = dict(zip(names, values, strict=True))
            verdict = GateVerdict(
                GateCode.PASSED, action=tuple(value_of[name] for name in ACTION_NAMES)
            )
        self.counters[verdict.code.value] += 1
        if verdict.passed:
            self._last_stamp_s = stamp_s
            self._last_execute_at_s = -math.inf if execute_at_s is None else execute_at_s
            self._late_stamps_s = []
        return verdict

    def _follow_clock(self, now_s: float) -> None:
        """Begin anew after a step back of the clock: every right stamp is before the last one."""
        back_s = self._last_now_s - now_s
        if back_s > self._future_tolerance_s:
            self._begin_anew(f"the clock went back by {back_s:.1f} s")
        self._last_now_s = now_s

    def _begin_anew(self, cause: str) -> None:
        self._last_stamp_s = self._last_execute_at_s = -math.inf
        self.counters["clock_went_back"] += 1
        self.notice = f"{cause}: the order of commands begins anew"

    def _sender_went_back(self, stamp_s: float) -> bool:
        """Tell a sender whose clock went back from commands that are late."""
        if self._late_stamps_s and stamp_s < self._late_stamps_s[-1]:
            self._late_stamps_s = []
        self._late_stamps_s.append(stamp_s)
        return len(self._late_stamps_s) >= _NEW_ORDER

    def _judge_content(
        self, names: Sequence[str], values: Sequence[float], frame: str, step_s: float
    ) -> GateVerdict | None:
        if sorted(names) != sorted(ACTION_NAMES):
            return GateVerdict(
                GateCode.WRONG_NAMES,
                f"names are [{', '.join(names)[:200]}], expected [{', '.join(ACTION_NAMES)}] "
                "in any order",
            )
        if len(values) != len(ACTION_NAMES):
            return GateVerdict(
                GateCode.WRONG_LENGTH, f"{len(values)} values, expected {len(ACTION_NAMES)}"
            )
        bad = [n for n, v in zip(names, values, strict=True) if not math.isfinite(v)]
        if bad:
            return GateVerdict(GateCode.NON_FINITE, f"not finite: {', '.join(bad)}")
        if frame and frame != self._frame:
            return GateVerdict(
                GateCode.WRONG_FRAME, f"frame_id is {frame[:40]!r}, expected {self._frame!r}"
            )
        if not ACTION_SPACE.executes(step_s):
            low, high = ACTION_SPACE.step_range_s
            return GateVerdict(GateCode.BAD_STEP, f"step_s is {step_s}, expected {low} .. {high} s")
        return None

    def _judge_age(
        self, stamp_s: float, now_s: float, max_observation_age_s: float | None
    ) -> GateVerdict | None:
        age_s = now_s - stamp_s
        # Written so that a number that is none is refused too.
        if not age_s >= -self._future_tolerance_s:
            return self._future("stamped", -age_s)
        limit_s = self._max_age_s
        if max_observation_age_s is not None:
            limit_s = min(max_observation_age_s, ROBOT.max_observation_age_s)
        if not age_s <= limit_s:
            return GateVerdict(
                GateCode.STALE, f"the observation is {age_s:.3f} s old, limit {limit_s:g} s"
            )
        return None

    def _judge_time(self, execute_at_s: float | None, now_s: float) -> GateVerdict | None:
        if execute_at_s is None:
            return None
        late_s = now_s - execute_at_s
        if not late_s >= -self._future_tolerance_s:
            return self._future("to be executed", -late_s)
        if not late_s <= self._max_lateness_s:
            return GateVerdict(
                GateCode.LATE,
                f"comes {late_s:.3f} s after its time, limit {self._max_lateness_s:g} s",
            )
        return None

    def _future(self, what: str, ahead_s: float) -> GateVerdict:
        return GateVerdict(
            GateCode.FUTURE_STAMP,
            f"{what} {ahead_s:.3f} s in the future (tolerance {self._future_tolerance_s} s); "
            "are the clocks of the machines synchronised?",
        )

    def _judge_order(self, stamp_s: float, execute_at_s: float | None) -> GateVerdict | None:
        back_s, what = self._last_stamp_s - stamp_s, "the observation"
        if back_s <= 0 and execute_at_s is not None:
            # Steps of one action chunk come from the same observation.
            back_s, what = self._last_execute_at_s - execute_at_s, "the time of execution"
        if not back_s > 0:
            return None
        if not self._sender_went_back(stamp_s if execute_at_s is None else execute_at_s):
            return GateVerdict(
                GateCode.OUT_OF_ORDER, f"{what} is {back_s:.3f} s before that of the last command"
            )
        self._begin_anew(f"the stamps of commands went back by {back_s:.3f} s")
        return None
