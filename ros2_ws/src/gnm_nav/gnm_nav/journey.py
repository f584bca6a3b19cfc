"""The way to one goal: how far it is done, and what is in its way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from gnm_nav.navigation_types import NavigationConfig

_CHANGE_S = 1.0
"""Time over which a change of the image is measured."""


class Trouble(StrEnum):
    """What keeps a robot from coming nearer to its goal; the values are for people."""

    STUCK = "the image does not change while driving"
    NO_PROGRESS = "no progress"
    LOST = "lost on the way"


@dataclass
class Nudge:
    """A recovery from being stuck: a little back, turn a little, then straight on."""

    rate_rad_s: float
    back_until_s: float
    turn_until_s: float
    drive_until_s: float


@dataclass
class Turn:
    """A turn on the spot that the route asks for; once begun it is finished.

    Attributes:
        target: the node that it leads to.
        rate_rad_s: its speed, counter-clockwise.
        angle_rad: its size.
        sure: whether the place was known for sure when it began.
        turned_rad: how far it has gone.
    """

    target: int
    rate_rad_s: float
    angle_rad: float
    sure: bool
    turned_rad: float = 0.0


@dataclass
class Journey:
    """What is remembered from when a goal is set until it is reached or given up.

    Attributes:
        goal: the goal node.
        first_steps: length of the route when it was first known.
        best_steps: shortest rest of the route so far.
        progress_at_s: when it last became shorter.
        nearest_goal_steps: smallest distance to the goal since it came near.
        reach_ticks: ticks on end for which the goal was within reach.
        replans: times that edges were blocked.
        second_tries: times that blocked edges were tried again.
        troubles: nodes at which something was in the way.
        lost_since_s: since when the robot is lost, None: it is not.
        searched_rad: how far it has turned to find itself or another way.
        search_side: +1 or −1, the side to which it does so; None: not yet chosen.
        looking_since_s: since when it looks at something near, None: it does not.
        looked_at_rad: `searched_rad` where it last did.
        returned_steps: how far it has driven back since it got lost.
        crept_steps: how far it has driven forwards since then.
        looked_at_steps: sum of both where it last looked at something near.
        last_node: where it last knew to be.
        last_lateral_m: sideways offset of the last waypoints then.
        turn: the turn that it is in.
        nudge: the recovery that it is in.
        blind_back_m: how far it has driven back since it last saw anything.
        blind_rad: how far it has turned since then.
        still_since_s: since when the image has not changed while driving.
    """

    goal: int
    first_steps: float | None = None
    best_steps: float = math.inf
    progress_at_s: float = math.nan
    nearest_goal_steps: float = math.inf
    reach_ticks: int = 0
    replans: int = 0
    second_tries: int = 0
    troubles: list[int] = field(default_factory=list)
    lost_since_s: float | None = None
    searched_rad: float = 0.0
    search_side: float | None = None
    looking_since_s: float | None = None
    looked_at_rad: float = -math.inf
    returned_steps: float = 0.0
    crept_steps: float = 0.0
    looked_at_steps: float = 0.0
    last_node: int | None = None
    last_lateral_m: float = 0.0
    turn: Turn | None = None
    nudge: Nudge | None = None
    blind_back_m: float = 0.0
    blind_rad: float = 0.0
    still_since_s: float | None = None

    def measure_progress(
        self, remaining_steps: float, now_s: float, config: NavigationConfig
    ) -> float:
        """Take the rest of the route into account; return the part done, 0 … 1."""
        if self.first_steps is None:
            self.first_steps = max(remaining_steps, 1e-3)
        if math.isnan(self.progress_at_s):
            self.progress_at_s = now_s
        if remaining_steps <= self.best_steps - config.progress_steps:
            self.best_steps = remaining_steps
            self.progress_at_s = now_s
            self.end_search()
        return float(np.clip(1.0 - remaining_steps / self.first_steps, 0.0, 1.0))

    def shift_clock(self, by_s: float) -> None:
        """The clock was set: what began before lasts as long as it would have."""
        self.progress_at_s += by_s
        for name in ("lost_since_s", "looking_since_s", "still_since_s"):
            if (since_s := getattr(self, name)) is not None:
                setattr(self, name, since_s + by_s)
        if self.nudge is not None:
            self.nudge.back_until_s += by_s
            self.nudge.turn_until_s += by_s
            self.nudge.drive_until_s += by_s

    def end_search(self) -> None:
        """The next search begins anew."""
        self.searched_rad = 0.0
        self.search_side = None
        self.looked_at_rad = -math.inf

    def trouble(
        self,
        frames: Sequence[NDArray[np.uint8]],
        driving: bool,
        now_s: float,
        period_s: float,
        config: NavigationConfig,
    ) -> Trouble | None:
        """What keeps the robot from coming nearer, if anything does.

        Args:
            frames: context, oldest first, (h, w, 3) uint8 each.
            driving: whether it was told to drive forwards.
            now_s: current time.
            period_s: time between two frames.
            config: thresholds.
        """
        if not driving or len(frames) < 2:
            self.still_since_s = None
        else:
            back = min(len(frames) - 1, round(_CHANGE_S / period_s))
            before = frames[-1 - back].astype(np.int16)
            change = float(np.abs(frames[-1].astype(np.int16) - before).mean())
            if change > config.stuck_change:
                self.still_since_s = None
            elif self.still_since_s is None:
                self.still_since_s = now_s
            elif now_s - self.still_since_s >= config.stuck_s:
                self.still_since_s = None
                return Trouble.STUCK
        if now_s - self.progress_at_s > config.no_progress_s:
            return Trouble.NO_PROGRESS
        return None
