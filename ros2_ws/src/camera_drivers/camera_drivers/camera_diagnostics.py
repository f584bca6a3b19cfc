"""Judges a camera's condition in the terms of diagnostic_msgs/DiagnosticStatus."""

import math
from dataclasses import dataclass
from enum import IntEnum

from camera_drivers.capture_loop import RATE_WINDOW_S, CaptureState, CaptureStatus

# Webcams halve their rate in the dark when their exposure is automatic.
LOW_RATE_FRACTION = 0.8


class Level(IntEnum):
    """Values of DiagnosticStatus.level."""

    OK = 0
    WARN = 1
    ERROR = 2


@dataclass(frozen=True)
class Condition:
    """A judgement: level, one sentence, and figures by name."""

    level: Level
    message: str
    values: dict[str, str]


def judge(
    status: CaptureStatus, *, max_age_s: float, frozen_limit_frames: int, notes: tuple[str, ...]
) -> Condition:
    """Judges the state of a capture loop.

    Args:
        status: of the loop.
        max_age_s: a latest frame older than this is an error.
        frozen_limit_frames: so many identical frames are worth a warning; 0: none is.
        notes: further things to warn of, such as a calibration that does not fit.
    """
    report = status.report
    values = {
        "state": status.state.value,
        "rate_hz": _number(status.rate_hz, 1),
        "age_ms": _number(status.age_s * 1000.0, 1),
        "frames": str(status.frames),
        "bad_frames": str(status.bad_frames),
        "drops": str(status.drops),
        "reconnects": str(status.reconnects),
        "failed_attempts": str(status.failed_attempts),
        "identical_frames": str(status.identical_frames),
    }
    if report is not None:
        if report.width:
            values["size"] = f"{report.width}x{report.height}"
        values["nominal_rate_hz"] = _number(report.frame_rate_hz or math.nan, 1)
        values |= report.values
    if status.state is CaptureState.STOPPED:
        return Condition(Level.OK, "stopped", values)
    if status.state is CaptureState.ENDED:
        return Condition(Level.OK, "the recording has ended", values)
    if status.state is CaptureState.RETRYING:
        message = f"no image: {status.reason}; next attempt within {status.retry_s:g} s"
        return Condition(Level.ERROR, message, values)
    if status.state is CaptureState.CONNECTING:
        if status.failed_attempts:
            return Condition(Level.ERROR, f"no image: {status.reason}; connecting", values)
        return Condition(Level.WARN, "connecting", values)
    if not status.age_s <= max_age_s:
        age = (
            "no image yet" if math.isnan(status.age_s) else f"the image is {status.age_s:.1f} s old"
        )
        return Condition(Level.ERROR, f"{age}, expected less than {max_age_s:g} s", values)
    warnings = list(notes)
    if report is not None:
        warnings += report.differences
        if report.is_rate_steady and status.rate_hz < LOW_RATE_FRACTION * report.frame_rate_hz:
            warnings.append(
                f"the rate is {status.rate_hz:.1f} Hz, expected {report.frame_rate_hz:.1f} Hz"
            )
    if status.recent_bad_frames:
        warnings.append(
            f"{status.recent_bad_frames} images of the last {RATE_WINDOW_S:g} s were left out: "
            + status.bad_frame_reason
        )
    if 0 < frozen_limit_frames <= status.identical_frames:
        warnings.append(f"the last {status.identical_frames} frames were identical")
    if warnings:
        return Condition(Level.WARN, "; ".join(warnings), values)
    return Condition(Level.OK, f"streaming at {_number(status.rate_hz, 1)} Hz", values)


def _number(value: float, digits: int) -> str:
    return "unknown" if math.isnan(value) else f"{value:.{digits}f}"
