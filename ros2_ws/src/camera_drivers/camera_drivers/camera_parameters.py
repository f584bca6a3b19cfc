"""The parameters of the node: descriptions, limits, and their translation into settings."""

from dataclasses import dataclass, fields
from typing import Any

from node_common.parameters import accept_whole_numbers
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from camera_drivers.camera_config import (
    CONTROL_MODES,
    ROTATIONS_DEG,
    RTSP_TRANSPORTS,
    CameraConfig,
    Controls,
)

# Declared by rclpy itself, or meant for it.
_FOREIGN_PREFIXES = ("use_sim_time", "start_type_description_service", "qos_overrides.")
_MODE = f"one of {', '.join(CONTROL_MODES)}; device: as the camera has it"


@dataclass(frozen=True)
class _Parameter:
    """A parameter; `limits` are inclusive, `at_run_time` ones may change in any state."""

    name: str
    default: Any
    description: str
    limits: tuple[float, float] | None = None
    at_run_time: bool = False


PARAMETERS = (
    _Parameter("source", "", "device, stream URL, RealSense, video file or image folder"),
    _Parameter("camera_name", "camera", "name in calibration files and diagnostics"),
    _Parameter("frame_id", "camera_optical_frame", "frame of the images (z forward, x right)"),
    _Parameter(
        "camera_info_url",
        "",
        "calibration YAML as file:///… or package://…; empty: "
        "${ROS_HOME}/camera_info/${NAME}.yaml if it exists",
    ),
    _Parameter("image_width", 0, "width asked for [px], before rotation; 0: source's", (0, 16384)),
    _Parameter(
        "image_height", 0, "height asked for [px], before rotation; 0: source's", (0, 16384)
    ),
    _Parameter("frame_rate_hz", 0.0, "rate asked for [Hz]; 0: the source's own", (0.0, 1000.0)),
    _Parameter("pixel_format", "", "four-character code asked of a V4L2 device, e.g. MJPG"),
    _Parameter(
        "rotation_deg", 0, f"clockwise, one of {', '.join(map(str, ROTATIONS_DEG))}", (0, 270)
    ),
    _Parameter("loop", True, "files and folders start again at their end"),
    _Parameter("rtsp_transport", "tcp", f"one of {', '.join(RTSP_TRANSPORTS)}"),
    _Parameter("open_timeout_s", 5.0, "longest time to connect [s]", (0.1, 60.0)),
    _Parameter("read_timeout_s", 2.0, "longest wait for one frame [s]", (0.1, 60.0)),
    _Parameter("reconnect_initial_s", 0.5, "first wait before reconnecting [s]", (0.01, 60.0)),
    _Parameter("reconnect_max_s", 10.0, "longest wait before reconnecting [s]", (0.01, 600.0)),
    _Parameter(
        "frozen_limit_frames",
        100,
        "identical frames in a row that mean a frozen device or a suspect stream; 0: any number",
        (0, 100000),
    ),
    _Parameter(
        "transport_latency_s",
        0.0,
        "delay from exposure to arrival [s], subtracted where the source tells no capture time",
        (0.0, 5.0),
    ),
    _Parameter("reliable", False, "reliable instead of best-effort delivery of images"),
    _Parameter("jpeg_quality", 90, "of image_raw/compressed", (1, 100), at_run_time=True),
    _Parameter("max_age_s", 1.0, "diagnostics: an older image is an error [s]", (0.01, 60.0), True),
    _Parameter("exposure_mode", "device", _MODE, at_run_time=True),
    _Parameter("exposure_time_us", 0, "exposure in manual mode [us]; 0: unset", (0, 10**7), True),
    _Parameter("gain", -1, "in the device's units; -1: as it has it", (-1, 65535), True),
    _Parameter("white_balance_mode", "device", _MODE, at_run_time=True),
    _Parameter(
        "white_balance_k", 0, "colour temperature in manual mode [K]; 0: unset", (0, 20000), True
    ),
    _Parameter("focus_mode", "device", _MODE, at_run_time=True),
    _Parameter(
        "focus_position", -1, "device's units, in manual mode; -1: unset", (-1, 65535), True
    ),
)
RUN_TIME_PARAMETERS = frozenset(p.name for p in PARAMETERS if p.at_run_time)


def declare_parameters(node: Node) -> None:
    """Declares all parameters on a node.

    Args:
        node: made with `automatically_declare_parameters_from_overrides`, which shows what names
            were given: rclpy drops values of undeclared parameters without a word.

    Raises:
        ValueError: a parameter was given that does not exist.
        rclpy.exceptions.ParameterException: a given value is out of range or of a wrong type.
    """
    names = {parameter.name for parameter in PARAMETERS}
    given = set(node.get_parameters_by_prefix(""))
    unknown = sorted(name for name in given - names if not name.startswith(_FOREIGN_PREFIXES))
    if unknown:
        raise ValueError(
            f"unknown parameters: {', '.join(unknown)}; expected some of "
            + ", ".join(parameter.name for parameter in PARAMETERS)
        )
    for name in given & names:
        node.undeclare_parameter(name)
    accept_whole_numbers(node, {parameter.name: parameter.default for parameter in PARAMETERS})
    for parameter in PARAMETERS:
        descriptor = ParameterDescriptor(description=parameter.description)
        if parameter.limits is not None:
            low, high = parameter.limits
            if isinstance(parameter.default, int):
                limits = IntegerRange(from_value=int(low), to_value=int(high), step=0)
                descriptor.integer_range = [limits]
            else:
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=low, to_value=high)
                ]
        node.declare_parameter(parameter.name, parameter.default, descriptor)


def parameter_values(node: Node) -> dict[str, Any]:
    """The current value of every declared parameter by name."""
    return {parameter.name: node.get_parameter(parameter.name).value for parameter in PARAMETERS}


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
