"""Parameters of the guard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from node_common.parameters import NodeParameter

from base_drivers.command_guard import GuardConfig
from base_drivers.scan_watch import Footprint, ScanMount
from base_drivers.velocity import VelocityLimits

PARAMETERS: Final = (
    NodeParameter(
        "stamped_input", False, "cmd_vel_nav is TwistStamped instead of Twist", structural=True
    ),
    NodeParameter(
        "stamped_output", False, "cmd_vel is TwistStamped instead of Twist", structural=True
    ),
    NodeParameter("base_frame", "base_link", "frame of commands", structural=True),
    NodeParameter("rate_hz", 50.0, "rate at which cmd_vel is sent", 20.0, 200.0, structural=True),
    NodeParameter(
        "command_timeout_s",
        0.2,
        "a command is in force for this long, from the half on less and less",
        0.05,
        0.25,
    ),
    NodeParameter("zero_hold_s", 1.0, "zeros are sent this long after the last command", 0.3, 60.0),
    NodeParameter("command_max_age_s", 0.3, "oldest stamp of a command", 0.02, 2.0),
    NodeParameter("future_tolerance_s", 0.1, "how far a stamp may be ahead", 0.0, 0.5),
    NodeParameter("max_linear_m_s", 0.5, "forward and backward speed", 0.01, 20.0),
    NodeParameter("max_lateral_m_s", 0.0, "sideways speed; 0: cannot", 0.0, 20.0),
    NodeParameter("max_angular_rad_s", 1.0, "yaw rate", 0.01, 20.0),
    NodeParameter("max_linear_acceleration_m_s2", 1.0, "growth of the speed", 0.01, 100.0),
    NodeParameter("max_angular_acceleration_rad_s2", 3.0, "growth of the yaw rate", 0.01, 100.0),
    NodeParameter(
        "min_turning_radius_m", 0.0, "of a steered base; 0: turns on the spot", 0.0, 50.0
    ),
    NodeParameter("contacts_required", False, "nothing moves before contacts were heard of"),
    NodeParameter("contacts_timeout_s", 0.25, "silence of contacts that holds", 0.05, 5.0),
    NodeParameter("scan_required", False, "nothing moves before the first scan"),
    NodeParameter("scan_timeout_s", 0.25, "oldest scan that is trusted", 0.05, 5.0),
    NodeParameter("stop_distance_m", 0.15, "free way at which the base stops", 0.0, 10.0),
    NodeParameter("slow_distance_m", 0.6, "free way below which the base slows down", 0.01, 20.0),
    NodeParameter("side_margin_m", 0.03, "kept clear of what is passed", 0.0, 1.0),
    NodeParameter("footprint_front_m", 0.18, "front edge before base_link", 0.0, 5.0),
    NodeParameter("footprint_rear_m", 0.18, "rear edge behind base_link", 0.0, 5.0),
    NodeParameter("footprint_width_m", 0.36, "whole width", 0.01, 10.0),
    NodeParameter("scan_x_m", 0.0, "scanner before base_link", -10.0, 10.0),
    NodeParameter("scan_y_m", 0.0, "scanner to the left of base_link", -10.0, 10.0),
    NodeParameter("scan_yaw_rad", 0.0, "direction of the scanner's x axis", -3.1416, 3.1416),
    NodeParameter("scan_roll_rad", 0.0, "about x; upside down: 3.1416", -3.1416, 3.1416),
    NodeParameter("scan_pitch_rad", 0.0, "about y; positive looks down", -3.1416, 3.1416),
    NodeParameter("scan_frame", "", "scans of other frames are refused; empty: any frame"),
    NodeParameter(
        "scan_blind_is_free",
        False,
        "a scan of which no beam measures anything (all 0.0 or NaN) is free space",
    ),
    NodeParameter(
        "emergency_stop_timeout_s",
        0.0,
        "silence of ~/emergency_stop that counts as pressed, once heard; 0: it may be silent",
        0.0,
        60.0,
    ),
)


def config_from(values: Mapping[str, Any]) -> GuardConfig:
    """Make the guard's settings from parameter values.

    Raises:
        ValueError: values contradict each other.
    """
    return GuardConfig(
        limits=VelocityLimits(
            max_linear_m_s=values["max_linear_m_s"],
            max_lateral_m_s=values["max_lateral_m_s"],
            max_angular_rad_s=values["max_angular_rad_s"],
            max_linear_acceleration_m_s2=values["max_linear_acceleration_m_s2"],
            max_angular_acceleration_rad_s2=values["max_angular_acceleration_rad_s2"],
            min_turning_radius_m=values["min_turning_radius_m"],
        ),
        footprint=Footprint(
            front_m=values["footprint_front_m"],
            rear_m=values["footprint_rear_m"],
            half_width_m=values["footprint_width_m"] / 2.0,
        ),
        **{
            name: values[name]
            for name in (
                "command_timeout_s",
                "zero_hold_s",
                "command_max_age_s",
                "future_tolerance_s",
                "base_frame",
                "contacts_required",
                "contacts_timeout_s",
                "scan_required",
                "scan_timeout_s",
                "stop_distance_m",
                "slow_distance_m",
                "side_margin_m",
                "emergency_stop_timeout_s",
            )
        },
    )


def mount_from(values: Mapping[str, Any]) -> ScanMount:
    """Pose of the scanner from parameter values; the default ones say that none is set."""
    return ScanMount(
        values["scan_x_m"],
        values["scan_y_m"],
        values["scan_yaw_rad"],
        values["scan_roll_rad"],
        values["scan_pitch_rad"],
    )
