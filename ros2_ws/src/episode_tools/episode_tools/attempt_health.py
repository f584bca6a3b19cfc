"""Whether an attempt at an episode is a trial of the policy, or was spoiled by something else.

Decided from counters alone; whether the episode succeeded is not known here. Each counter is of a
limit that the node which counts enforces anyway, so there is no tolerance to choose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

OWN_REFUSALS = frozenset({"unreachable"})
"""Refusals that tell something about the policy: it asked for what the arm cannot do."""

LOAD_REFUSALS = frozenset({"stale", "late", "out_of_order", "joint_states"})
"""Refusals that come and go with load; any other stays until somebody changes something."""

REFUSED_S = 1.0
"""Commands that are refused for so long end the attempt [s]."""

_REFUSED = "refused_"


class AttemptHealth:
    """Compares counters of the nodes before an attempt with those after it.

    Args:
        real_time: the simulation, if any, has to keep real time. With a simulated clock everything
            waits for it, so nothing is late when it is slow.
    """

    def __init__(self, real_time: bool) -> None:
        self._real_time = real_time
        self._texts: dict[str, dict[str, str]] = {}
        self._before: dict[str, dict[str, str]] = {}
        self._stamps_s: dict[str, float] = {}

    def update(self, source: str, values: Mapping[str, str], stamp_s: float) -> None:
        """Take the values that a node published.

        Args:
            source: `control` (arm controller) or `simulation`.
            values: its counters and texts.
            stamp_s: when it published them [s].
        """
        self._texts[source] = dict(values)
        self._before.setdefault(source, self._texts[source])
        self._stamps_s[source] = stamp_s

    def begin(self) -> None:
        """Count from the values of now on."""
        self._before = dict(self._texts)

    def is_current(self, stamp_s: float) -> bool:
        """Whether every node that was heard before has published since `stamp_s` [s]."""
        return all(published_s >= stamp_s for published_s in self._stamps_s.values())

    @property
    def counters(self) -> dict[str, float]:
        """What grew during the attempt, and by how much; names are `source.counter`."""
        return {
            f"{source}.{name}": grown
            for source, values in self._texts.items()
            for name in values
            if _counts_faults(source, name) and (grown := self._grown(source, name)) > 0
        }

    @property
    def refused_for_a_second(self) -> bool:
        """Every command was refused for a second by now."""
        return self._number("control", "refusing_s") >= REFUSED_S and bool(self._refused())

    def reasons(self, missed_ticks: int) -> tuple[str, ...]:
        """Why the attempt is no trial.

        Args:
            missed_ticks: of the policy node: late, or without a fresh image and state.
        """
        reasons = []
        if missed_ticks > 0:
            ticks = "tick was" if missed_ticks == 1 else "ticks were"
            reasons.append(f"{missed_ticks} {ticks} late or had no fresh image and arm state")
        refused = self._refused()
        if refused:
            counts = ", ".join(f"{name} {count:.0f}" for name, count in refused.items())
            last = self._texts["control"].get("last_refusal", "")
            reasons.append(f"the arm controller refused commands, {counts}: {last}".rstrip(": "))
        lost = self._grown("control", "lost")
        if lost > 0:
            reasons.append(f"{lost:.0f} commands did not reach the arm controller")
        faults = self._grown("control", "joint_states_fault")
        if faults > 0:
            reasons.append(f"the arm controller stopped {faults:.0f} times without joint states")
        skipped = self._grown("simulation", "images_skipped")
        if skipped > 0:
            images = "image was" if skipped == 1 else "images were"
            reasons.append(f"{skipped:.0f} camera {images} lost")
        late_s = self._grown("simulation", "late_s")
        if late_s > 0 and self._real_time:
            reasons.append(f"the simulation fell {late_s:.2f} s behind real time")
        return tuple(reasons)

    @property
    def is_lasting(self) -> bool:
        """No command was accepted, for a cause that does not come and go with load."""
        refused = self._refused()
        return bool(refused.keys() - LOAD_REFUSALS) and self._grown("control", "accepted") == 0

    def _refused(self) -> dict[str, float]:
        return {
            code: grown
            for name in self._texts.get("control", {})
            if name.startswith(_REFUSED)
            and (code := name.removeprefix(_REFUSED)) not in OWN_REFUSALS
            and (grown := self._grown("control", name)) > 0
        }

    def _grown(self, source: str, name: str) -> float:
        before = _number(self._before.get(source, {}).get(name, "0"))
        after = self._number(source, name)
        # A node that was started again counts from zero.
        return after - before if after >= before else after

    def _number(self, source: str, name: str) -> float:
        return _number(self._texts.get(source, {}).get(name, "0"))


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else 0.0


def _counts_faults(source: str, name: str) -> bool:
    if source == "control":
        return name.startswith(_REFUSED) or name in ("lost", "joint_states_fault")
    return name in ("late_s", "images_skipped")
