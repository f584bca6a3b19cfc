"""The newest camera image and end-effector state, and whether they may be acted upon."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

Source = Literal["camera", "state"]

SOURCE_NAMES: Mapping[Source, str] = {"camera": "image", "state": "end-effector state"}
_REFUSED_S = 2.0
"""So long after a refusal it is the reason for having nothing newer [s], on the steady clock."""


@dataclass(frozen=True)
class FreshnessLimits:
    """When data may be acted upon.

    Attributes:
        camera_timeout_s: largest age of an image [s].
        state_timeout_s: largest age of a state, when its image arrives if there is one [s].
        future_tolerance_s: how far a stamp may lie ahead of the clock [s].
    """

    camera_timeout_s: float
    state_timeout_s: float
    future_tolerance_s: float


@dataclass(frozen=True)
class Problem:
    """Why there is no usable observation."""

    source: Source
    message: str


@dataclass(frozen=True)
class Snapshot:
    """The newest data of one tick.

    Attributes:
        values: observation name → value.
        stamp_ns: stamp of the image, or of the state when the policy has no camera [ns].
        age_s: age of that stamp [s].
        source: where it is from.
    """

    values: Mapping[str, NDArray[Any]]
    stamp_ns: int
    age_s: float
    source: Source = "camera"


@dataclass
class _Slot:
    values: dict[str, NDArray[Any]]
    stamp_ns: int | None = None
    arrived_ns: int | None = None


class ObservationBuffer:
    """Holds only the newest data; safe to use from several threads.

    Args:
        sources: the sources that the policy needs, the one whose stamp counts first.
        limits: when data is too old or stamped in the future; may be replaced at any time.
        on_restart: told when the clock went back, and all data was forgotten for that.
    """

    def __init__(
        self,
        sources: tuple[Source, ...],
        limits: FreshnessLimits,
        on_restart: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.limits = limits
        self._on_restart = on_restart
        self._sources = sources
        self._lock = threading.Lock()
        self._slots: dict[Source, _Slot] = {}
        self._refusals: dict[Source, tuple[str, float]] = {}
        self._newest_ns: int | None = None
        self._image_used = True
        self.images_received = 0
        self.images_dropped = 0
        self.clear()

    def clear(self) -> None:
        """Forget all data and counts."""
        with self._lock:
            self._slots = {source: _Slot({}) for source in self._sources}
            self._refusals = {}
            self._newest_ns = None
            self._image_used = True
            self.images_received = 0
            self.images_dropped = 0

    def put(
        self,
        source: Source,
        values: dict[str, NDArray[Any]],
        stamp_ns: int,
        now_ns: int | None = None,
    ) -> str:
        """Replace the data of a source, unless it is stamped in the future.

        Args:
            source: where the data comes from.
            values: observation name → value; not changed afterwards by the caller.
            stamp_ns: the message's stamp [ns].
            now_ns: the time on the clock that stamps messages [ns]; None: not known, and the stamp
                is judged by `take` alone.

        Returns:
            Why it was refused, "" when it was taken.
        """
        if now_ns is not None:
            self._follow(now_ns)
            ahead_s = (stamp_ns - now_ns) * 1e-9
            if ahead_s > self.limits.future_tolerance_s:
                # Remembered, it would be the newest for as long as it is ahead.
                refusal = (
                    f"stamped {ahead_s:.3f} s in the future, "
                    f"expected at most {self.limits.future_tolerance_s:g} s: compare the clocks"
                )
                self.refuse(source, refusal)
                return refusal
        slot = _Slot(values, stamp_ns, now_ns)
        with self._lock:
            self._slots[source] = slot
            self._refusals.pop(source, None)
            if source == "camera":
                self.images_received += 1
                self.images_dropped += not self._image_used
                self._image_used = False
        return ""

    def refuse(self, source: Source, reason: str) -> None:
        """Remember that data came and could not be used, which is another fault than silence."""
        with self._lock:
            self._refusals[source] = (reason, time.monotonic())

    def refusal(self) -> str:
        """What is being refused now, for people; "" when nothing is."""
        with self._lock:
            told = [self._refusal(source) for source in self._sources]
        return "; ".join(text for text in told if text)

    def _refusal(self, source: Source) -> str:
        reason, refused_s = self._refusals.get(source, ("", 0.0))
        if not reason or time.monotonic() - refused_s > _REFUSED_S:
            return ""
        return f"{SOURCE_NAMES[source]}s arrive and are refused: {reason}"

    def _follow(self, now_ns: int) -> None:
        """Begin anew when the clock went back: what is kept would lie in the future."""
        with self._lock:
            before_ns, self._newest_ns = self._newest_ns, now_ns
            back_s = 0.0 if before_ns is None else (before_ns - now_ns) * 1e-9
            if before_ns is None or back_s <= self.limits.future_tolerance_s:
                self._newest_ns = max(before_ns or now_ns, now_ns)
                return
            self._slots = {source: _Slot({}) for source in self._sources}
        self._on_restart(f"the clock went back by {back_s:.3f} s: beginning anew")

    def take(self, now_ns: int) -> Snapshot | Problem:
        """Return the newest data, or why it must not be acted upon.

        Args:
            now_ns: the time on the clock that stamped the messages [ns].
        """
        self._follow(now_ns)
        with self._lock:
            slots = dict(self._slots)
            image = slots.get("camera")
            values: dict[str, NDArray[Any]] = {}
            for source, slot in slots.items():
                then_ns = now_ns
                if source == "state" and image is not None and image.arrived_ns is not None:
                    # It was read when the image came. A slow camera makes no state old.
                    then_ns = max(image.arrived_ns, slot.arrived_ns or 0)
                problem = self._problem(source, slot.stamp_ns, then_ns)
                if problem is not None:
                    return problem
                values |= slot.values
            self._image_used = True
        stamp_ns = slots[self._sources[0]].stamp_ns
        assert stamp_ns is not None
        return Snapshot(values, stamp_ns, (now_ns - stamp_ns) * 1e-9, self._sources[0])

    def _problem(self, source: Source, stamp_ns: int | None, now_ns: int) -> Problem | None:
        name = SOURCE_NAMES[source]
        refusal = self._refusal(source)
        if stamp_ns is None:
            return Problem(source, refusal or f"no {name} has arrived")
        limits = self.limits
        limit_s = limits.camera_timeout_s if source == "camera" else limits.state_timeout_s
        age_s = (now_ns - stamp_ns) * 1e-9
        if age_s < -limits.future_tolerance_s:
            return Problem(
                source,
                f"the newest {name} is stamped {-age_s:.3f} s in the future, "
                f"expected at most {limits.future_tolerance_s:g} s: compare the clocks",
            )
        if age_s <= limit_s:
            return None
        if refusal:
            return Problem(source, refusal)
        found = f"is {age_s:.3f} s old" if stamp_ns else "has no stamp (0)"
        return Problem(source, f"the newest {name} {found}, expected at most {limit_s:g} s")
