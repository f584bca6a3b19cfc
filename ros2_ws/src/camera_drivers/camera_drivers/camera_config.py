"""The driver's settings: what they mean, their limits, and which of them fit together."""

from dataclasses import dataclass, field

from camera_drivers.source_url import (
    DEVICE_KINDS,
    PLAYBACK_KINDS,
    SourceKind,
    SourceUrl,
    parse_source,
)

CONTROL_MODES = ("device", "auto", "manual")
ROTATIONS_DEG = (0, 90, 180, 270)
RTSP_TRANSPORTS = ("tcp", "udp")


class ConfigError(ValueError):
    """Settings that are out of range or do not fit together."""


@dataclass(frozen=True)
class Controls:
    """What the sensor is asked to do. The mode "device" leaves a control as the device has it.

    Attributes:
        exposure_mode, white_balance_mode, focus_mode: "device", "auto" or "manual".
        exposure_time_us: exposure [us], used in manual mode.
        gain: in the device's own units; -1 leaves it alone.
        white_balance_k: colour temperature [K], used in manual mode.
        focus_position: in the device's own units, used in manual mode.
    """

    exposure_mode: str = "device"
    exposure_time_us: int = 0
    gain: int = -1
    white_balance_mode: str = "device"
    white_balance_k: int = 0
    focus_mode: str = "device"
    focus_position: int = -1

    def __post_init__(self) -> None:
        for mode_name, value_name, unset in (
            ("exposure_mode", "exposure_time_us", 0),
            ("white_balance_mode", "white_balance_k", 0),
            ("focus_mode", "focus_position", -1),
        ):
            mode, value = getattr(self, mode_name), getattr(self, value_name)
            if mode not in CONTROL_MODES:
                raise ConfigError(
                    f"{mode_name} is '{mode}'; expected one of {', '.join(CONTROL_MODES)}"
                )
            if mode == "manual" and value == unset:
                raise ConfigError(f"{mode_name} is 'manual' but {value_name} is not set; set it")
            if mode != "manual" and value != unset:
                raise ConfigError(
                    f"{value_name} is {value} but {mode_name} is '{mode}'; "
                    f"set {mode_name} to 'manual' or leave {value_name} at {unset}"
                )


@dataclass(frozen=True)
class CameraConfig:
    """Everything the driver needs to know, checked as a whole.

    Attributes:
        source: see `source_url.parse_source`.
        image_width, image_height: [px]. Devices are asked for this size; frames of streams, files
            and folders are scaled to it. Both 0: as the source gives it. Before rotation.
        frame_rate_hz: asked of devices; the playing rate of files and folders. 0: the source's own.
        pixel_format: four-character code asked of a V4L2 device, e.g. "MJPG"; "": its default.
        rotation_deg: clockwise rotation of the published image.
        loop: files and folders start again at the end.
        rtsp_transport: "tcp" or "udp".
        open_timeout_s, read_timeout_s: how long connecting and one frame may take.
        reconnect_initial_s, reconnect_max_s: first and longest wait between attempts.
        frozen_limit_frames: this many identical frames in a row are a failure of a device and a
            warning for a stream; 0 switches the check off.
        transport_latency_s: delay between exposure and arrival that the source cannot tell;
            subtracted from stamps that are times of arrival.
    """

    source: str
    image_width: int = 0
    image_height: int = 0
    frame_rate_hz: float = 0.0
    pixel_format: str = ""
    rotation_deg: int = 0
    loop: bool = True
    rtsp_transport: str = "tcp"
    open_timeout_s: float = 5.0
    read_timeout_s: float = 2.0
    reconnect_initial_s: float = 0.5
    reconnect_max_s: float = 10.0
    frozen_limit_frames: int = 100
    transport_latency_s: float = 0.0
    controls: Controls = field(default_factory=Controls)
    url: SourceUrl = field(init=False)

    def __post_init__(self) -> None:
        try:
            url = parse_source(self.source)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        object.__setattr__(self, "url", url)
        kind = url.kind
        if (self.image_width == 0) != (self.image_height == 0):
            raise ConfigError(
                f"image_width is {self.image_width} and image_height {self.image_height}; "
                "set both, or both to 0 for the source's own size"
            )
        if self.rotation_deg not in ROTATIONS_DEG:
            raise ConfigError(
                f"rotation_deg is {self.rotation_deg}; expected one of "
                + ", ".join(map(str, ROTATIONS_DEG))
            )
        if self.pixel_format and kind is not SourceKind.V4L2:
            raise ConfigError(
                f"pixel_format is '{self.pixel_format}' but the source is a {kind.value}; "
                "only V4L2 devices have one, leave it empty"
            )
        if self.pixel_format and len(self.pixel_format) != 4:
            raise ConfigError(
                f"pixel_format is '{self.pixel_format}'; expected four characters such as MJPG"
            )
        if kind is SourceKind.STREAM and self.frame_rate_hz:
            raise ConfigError(
                f"frame_rate_hz is {self.frame_rate_hz} but a stream plays at its server's rate; "
                "leave it at 0"
            )
        if kind is SourceKind.IMAGE_FOLDER and not self.frame_rate_hz:
            raise ConfigError("frame_rate_hz is 0 but an image folder has no rate; set it")
        if self.rtsp_transport not in RTSP_TRANSPORTS:
            raise ConfigError(
                f"rtsp_transport is '{self.rtsp_transport}'; expected one of "
                + ", ".join(RTSP_TRANSPORTS)
            )
        if not self.reconnect_initial_s <= self.reconnect_max_s:
            raise ConfigError(
                f"reconnect_initial_s is {self.reconnect_initial_s}, longer than reconnect_max_s "
                f"({self.reconnect_max_s}); make it shorter or equal"
            )
        if self.transport_latency_s and kind in PLAYBACK_KINDS:
            raise ConfigError(
                f"transport_latency_s is {self.transport_latency_s} but a {kind.value} has none; "
                "leave it at 0"
            )
        self._check_controls(kind)

    def _check_controls(self, kind: SourceKind) -> None:
        if kind not in DEVICE_KINDS and self.controls != Controls():
            raise ConfigError(
                f"exposure, gain, white balance or focus is set but the source is a {kind.value}; "
                "only V4L2 and RealSense devices have these controls, leave them at their defaults"
            )

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) asked for [px], before rotation; None: the source's own."""
        return (self.image_width, self.image_height) if self.image_width else None
