"""The parameters of the node: descriptions, limits, and their translation into settings."""

from dataclasses import fields, replace
from typing import Any

from node_common.parameters import NodeParameter

from camera_drivers.camera_config import (
    CONTROL_MODES,
    ROTATIONS_DEG,
    RTSP_TRANSPORTS,
    CameraConfig,
    Controls,
)

_MODE = f"one of {', '.join(CONTROL_MODES)}; device: as the camera has it"


_FIXED = (
    NodeParameter("source", "", "device, stream URL, RealSense, video file or image folder"),
    NodeParameter("camera_name", "camera", "name in calibration files and diagnostics"),
    NodeParameter("frame_id", "camera_optical_frame", "frame of the images (z forward, x right)"),
    NodeParameter(
        "camera_info_url",
        "",
        "calibration YAML as file:///… or package://…; empty: "
        "${ROS_HOME}/camera_info/${NAME}.yaml if it exists",
    ),
    NodeParameter("image_width", 0, "width asked for [px], before rotation; 0: source's", 0, 16384),
    NodeParameter(
        "image_height", 0, "height asked for [px], before rotation; 0: source's", 0, 16384
    ),
    NodeParameter("frame_rate_hz", 0.0, "rate asked for [Hz]; 0: the source's own", 0.0, 1000.0),
    NodeParameter("pixel_format", "", "four-character code asked of a V4L2 device, e.g. MJPG"),
    NodeParameter(
        "rotation_deg", 0, f"clockwise, one of {', '.join(map(str, ROTATIONS_DEG))}", 0, 270
    ),
    NodeParameter("loop", True, "files and folders start again at their end"),
    NodeParameter("rtsp_transport", "tcp", f"one of {', '.join(RTSP_TRANSPORTS)}"),
    NodeParameter("open_timeout_s", 5.0, "longest time to connect [s]", 0.1, 60.0),
    NodeParameter("read_timeout_s", 2.0, "longest wait for one frame [s]", 0.1, 60.0),
    NodeParameter("reconnect_initial_s", 0.5, "first wait before reconnecting [s]", 0.01, 60.0),
    NodeParameter("reconnect_max_s", 10.0, "longest wait before reconnecting [s]", 0.01, 600.0),
    NodeParameter(
        "frozen_limit_frames",
        100,
        "identical frames in a row that mean a frozen device or a suspect stream; 0: any number",
        0,
        100000,
    ),
    NodeParameter(
        "transport_latency_s",
        0.0,
        "delay from exposure to arrival [s], subtracted where the source tells no capture time",
        0.0,
        5.0,
    ),
    NodeParameter("reliable", False, "reliable instead of best-effort delivery of images"),
)
_AT_RUN_TIME = (
    NodeParameter("jpeg_quality", 90, "of image_raw/compressed", 1, 100),
    NodeParameter("max_age_s", 1.0, "diagnostics: an older image is an error [s]", 0.01, 60.0),
    NodeParameter("exposure_mode", "device", _MODE),
    NodeParameter("exposure_time_us", 0, "exposure in manual mode [us]; 0: unset", 0, 10**7),
    NodeParameter("gain", -1, "in the device's units; -1: as it has it", -1, 65535),
    NodeParameter("white_balance_mode", "device", _MODE),
    NodeParameter(
        "white_balance_k", 0, "colour temperature in manual mode [K]; 0: unset", 0, 20000
    ),
    NodeParameter("focus_mode", "device", _MODE),
    NodeParameter("focus_position", -1, "device's units, in manual mode; -1: unset", -1, 65535),
)
PARAMETERS = (*(replace(entry, structural=True) for entry in _FIXED), *_AT_RUN_TIME)


def controls_from(values: dict[str, Any]) -> Controls:
    """The sensor's controls among parameter values.

    Raises:
        ConfigError: they do not fit together.
    """
    return Controls(**{field.name: values[field.name] for field in fields(Controls)})


def config_from(values: dict[str, Any]) -> CameraConfig:
    """The settings of the driver among parameter values.

    Raises:
        ConfigError: they do not fit together or to the source.
    """
    names = [field.name for field in fields(CameraConfig) if field.init and field.name in values]
    return CameraConfig(**{name: values[name] for name in names}, controls=controls_from(values))
