"""The newest camera image and end-effector state, and whether they may be acted upon."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

Source = Literal["camera", "state"]


@dataclass(frozen=True)
class FreshnessLimits:
    """When data may be acted upon.

    Attributes:
        camera_timeout_s: largest age of an image [s].
        state_timeout_s: largest age of a state [s].
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
    """

    values: Mapping[str, NDArray[Any]]
    stamp_ns: int
    age_s: float


@dataclass
class _Slot:
    values: dict[str, NDArray[Any]]
    stamp_ns: int | None = None


class ObservationBuffer:
    """Holds only the newest data; safe to use from several threads.

    Args:
        sources: the sources that the policy needs, the one whose stamp counts first.
        limits: when data is too old or stamped in the future; may be replaced at any time.
    """

    def __init__(self, sources: tuple[Source, ...], limits: FreshnessLimits) -> None:
        self.limits = limits
        self._sources = sources
        self._lock = threading.Lock()
        self._slots: dict[Source, _Slot] = {}
        self._image_used = True
        self.images_received = 0
        self.images_dropped = 0
        self.clear()

    def clear(self) -> None:
        """Forget all data and counts."""
        with self._lock:
            self._slots = {source: _Slot({}) for source in self._sources}
            self._image_used = True
            self.images_received = 0
            self.images_dropped = 0

    def put(self, source: Source, values: dict[str, NDArray[Any]], stamp_ns: int) -> None:
        """Replace the data of a source.

        Args:
            source: where the data comes from.
            values: observation name → value; not changed afterwards by the caller.
            stamp_ns: the message's stamp [ns].
        """
        slot = _Slot(values, stamp_ns)
        with self._lock:
            self._slots[source] = slot
            if source == "camera":
                self.images_received += 1
                self.images_dropped += not self._image_used
                self._image_used = False

    def take(self, now_ns: int) -> Snapshot | Problem:
        """Return the newest data, or why it must not be acted upon.

        Args:
            now_ns: the time on the clock that stamped the messages [ns].
        """
        with self._lock:
            slots = dict(self._slots)
            values: dict[str, NDArray[Any]] = {}
            for source, slot in slots.items():
                problem = self._problem(source, slot.stamp_ns, now_ns)
                if problem is not None:
                    return problem
                values |= slot.values
            self._image_used = True
        stamp_ns = slots[self._sources[0]].stamp_ns
        assert stamp_ns is not None
        return Snapshot(values, stamp_ns, (now_ns - stamp_ns) * 1e-9)

    def _problem(self, source: Source, stamp_ns: int | None, now_ns: int) -> Problem | None:
        name = "image" if source == "camera" else "end-effector state"
        if stamp_ns is None:
            return Problem(source, f"no {name} has arrived")
        limits = self.limits
        limit_s = limits.camera_timeout_s if source == "camera" else limits.state_timeout_s
        age_s = (now_ns - stamp_ns) * 1e-9
        if age_s < -limits.future_tolerance_s:
            return Problem(
                source,
                f"the newest {name} is stamped {-age_s:.3f} s in the future, "
                f"expected at most {limits.future_tolerance_s:g} s: compare the clocks",
            )
        if not age_s <= limit_s:
            return Problem(
                source, f"the newest {name} is {age_s:.3f} s old, expected at most {limit_s:g} s"
            )
        return None
