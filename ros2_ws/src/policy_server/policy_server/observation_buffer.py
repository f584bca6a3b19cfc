"""The newest images and states, and whether they may be acted upon.

A source is named by a string: `camera` for the camera `main`, `camera NAME` for any other, and the
kind of an observation for a state.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

MAIN_CAMERA = "main"
END_EFFECTOR_STATE = "end_effector_state"
_NAMES = {
    END_EFFECTOR_STATE: ("end-effector state", "end-effector states"),
    "joint_state": ("joint state", "joint states"),
    "imu": ("IMU measurement", "IMU measurements"),
    "commanded_velocity": ("commanded velocity", "commanded velocities"),
}
_PAIRING_DEPTH = 64
"""Images that are kept of each of several cameras: two seconds of one at 30 Hz."""
_REFUSED_S = 2.0
"""So long after a refusal it is the reason for having nothing newer [s], on the steady clock."""


@dataclass(frozen=True)
class FreshnessLimits:
    """When data may be acted upon.

    Attributes:
        camera_timeout_s: largest age of an image [s].
        state_timeout_s: largest age of a state, when its image arrives if there is one [s].
        future_tolerance_s: how far a stamp may lie ahead of the clock [s].
        pairing_tolerance_s: how far apart the stamps of images of several cameras may be [s].
    """

    camera_timeout_s: float
    state_timeout_s: float
    future_tolerance_s: float
    pairing_tolerance_s: float = 0.05


def camera_source(camera: str) -> str:
    """Return the source that is a camera, by the camera's name."""
    return "camera" if camera == MAIN_CAMERA else f"camera {camera}"


def is_camera(source: str) -> bool:
    """Whether a source is a camera."""
    return source.split(" ")[0] == "camera"


def source_name(source: str, plural: bool = False) -> str:
    """Return what a message of a source is called, for people."""
    if not is_camera(source):
        return _NAMES[source][plural]
    return ("images" if plural else "image") + (f" of {source}" if " " in source else "")


@dataclass(frozen=True)
class Problem:
    """Why there is no usable observation."""

    source: str
    message: str


@dataclass(frozen=True)
class Snapshot:
    """The newest data of one tick.

    Attributes:
        values: observation name → value.
        stamp_ns: stamp of the image, of several cameras the oldest, or of the state when the policy
            has no camera [ns].
        age_s: age of that stamp [s].
        source: where it is from.
    """

    values: Mapping[str, NDArray[Any]]
    stamp_ns: int
    age_s: float
    source: str = "camera"


@dataclass(frozen=True)
class _Entry:
    values: Mapping[str, NDArray[Any]]
    stamp_ns: int
    arrived_ns: int | None


class ObservationBuffer:
    """Holds only the newest data; safe to use from several threads.

    Of several cameras with different delays it pairs images of the same moment: the newest at which
    every camera has shown something. The states are those nearest to it.

    Args:
        sources: the sources that the policy needs, cameras first; without a camera, the one whose
            stamp counts.
        limits: when data is too old or stamped in the future; may be replaced at any time.
        on_restart: told when the clock went back, and all data was forgotten for that.
    """

    def __init__(
        self,
        sources: tuple[str, ...],
        limits: FreshnessLimits,
        on_restart: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.limits = limits
        self._on_restart = on_restart
        self._sources = sources
        self._lock = threading.Lock()
        self._cameras = tuple(source for source in sources if is_camera(source))
        self._depth = _PAIRING_DEPTH if len(self._cameras) > 1 else 1
        self._entries: dict[str, deque[_Entry]] = {}
        self._refusals: dict[str, tuple[str, float]] = {}
        self._newest_ns: int | None = None
        self._unused_images: set[str] = set()
        self.images_received = 0
        self.images_dropped = 0
        self.clear()

    def clear(self) -> None:
        """Forget all data and counts."""
        with self._lock:
            self._forget()
            self._refusals = {}
            self._newest_ns = None
            self._unused_images = set()
            self.images_received = 0
            self.images_dropped = 0

    def _forget(self) -> None:
        self._entries = {source: deque(maxlen=self._depth) for source in self._sources}

    def put(
        self,
        source: str,
        values: Mapping[str, NDArray[Any]],
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
        with self._lock:
            self._entries[source].append(_Entry(values, stamp_ns, now_ns))
            self._refusals.pop(source, None)
            if is_camera(source):
                self.images_received += 1
                self.images_dropped += source in self._unused_images
                self._unused_images.add(source)
        return ""

    def refuse(self, source: str, reason: str) -> None:
        """Remember that data came and could not be used, which is another fault than silence."""
        with self._lock:
            self._refusals[source] = (reason, time.monotonic())

    def refusal(self) -> str:
        """What is being refused now, for people; "" when nothing is."""
        with self._lock:
            told = [self._refusal(source) for source in self._sources]
        return "; ".join(text for text in told if text)

    def _refusal(self, source: str) -> str:
        reason, refused_s = self._refusals.get(source, ("", 0.0))
        if not reason or time.monotonic() - refused_s > _REFUSED_S:
            return ""
        return f"{source_name(source, plural=True)} arrive and are refused: {reason}"

    def _follow(self, now_ns: int) -> None:
        """Begin anew when the clock went back: what is kept would lie in the future."""
        with self._lock:
            before_ns, self._newest_ns = self._newest_ns, now_ns
            back_s = 0.0 if before_ns is None else (before_ns - now_ns) * 1e-9
            if before_ns is None or back_s <= self.limits.future_tolerance_s:
                self._newest_ns = max(before_ns or now_ns, now_ns)
                return
            self._forget()
        self._on_restart(f"the clock went back by {back_s:.3f} s: beginning anew")

    def take(self, now_ns: int) -> Snapshot | Problem:
        """Return the newest data, or why it must not be acted upon.

        Args:
            now_ns: the time on the clock that stamped the messages [ns].
        """
        self._follow(now_ns)
        with self._lock:
            newest = {s: entries[-1] for s, entries in self._entries.items() if entries}
            images = [newest[camera] for camera in self._cameras if camera in newest]
            # A state was read when the image came. A slow camera makes no state old.
            arrived_ns = max((image.arrived_ns or 0 for image in images), default=0)
            for source in self._sources:
                entry, then_ns = newest.get(source), now_ns
                if entry is not None and not is_camera(source) and arrived_ns:
                    then_ns = max(arrived_ns, entry.arrived_ns or 0)
                problem = self._problem(source, entry, then_ns)
                if problem is not None:
                    return problem
            stamp_ns = min(entry.stamp_ns for entry in images or [newest[self._sources[0]]])
            values: dict[str, NDArray[Any]] = {}
            for source, entries in self._entries.items():
                entry = min(entries, key=lambda kept: abs(kept.stamp_ns - stamp_ns))
                apart_s = abs(entry.stamp_ns - stamp_ns) * 1e-9
                if is_camera(source) and apart_s > self.limits.pairing_tolerance_s:
                    return Problem(
                        source,
                        f"the {source_name(source)} that is nearest to those of the other cameras "
                        f"is {apart_s:.3f} s from them, expected at most "
                        f"{self.limits.pairing_tolerance_s:g} s",
                    )
                values |= entry.values
            self._unused_images = set()
        return Snapshot(values, stamp_ns, (now_ns - stamp_ns) * 1e-9, self._sources[0])

    def _problem(self, source: str, entry: _Entry | None, now_ns: int) -> Problem | None:
        name = source_name(source)
        refusal = self._refusal(source)
        if entry is None:
            return Problem(source, refusal or f"no {name} has arrived")
        limits = self.limits
        limit_s = limits.camera_timeout_s if is_camera(source) else limits.state_timeout_s
        age_s = (now_ns - entry.stamp_ns) * 1e-9
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
        found = f"is {age_s:.3f} s old" if entry.stamp_ns else "has no stamp (0)"
        return Problem(source, f"the newest {name} {found}, expected at most {limit_s:g} s")
