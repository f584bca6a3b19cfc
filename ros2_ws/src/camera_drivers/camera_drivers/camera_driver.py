"""Node `camera_driver`: publishes what one camera sees."""

import sys
import threading
import time
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from builtin_interfaces.msg import Time
from node_common.managed_node import ManagedNode
from node_common.running import run_node
from rclpy.lifecycle import LifecyclePublisher
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time as ClockTime
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from sensor_msgs.srv import SetCameraInfo

from camera_drivers.calibration_file import (
    DEFAULT_URL,
    Calibration,
    CalibrationError,
    UnknownDistortionError,
    load_calibration,
    resolve_url,
    save_calibration,
)
from camera_drivers.camera_config import CameraConfig
from camera_drivers.camera_diagnostics import Condition, Level, judge
from camera_drivers.camera_messages import (
    calibration_from_message,
    camera_info_message,
    compressed_message,
    image_message,
)
from camera_drivers.camera_parameters import PARAMETERS, config_from
from camera_drivers.capture_loop import Backoff, CaptureLoop, CaptureState, CaptureStatus
from camera_drivers.image_scaling import rotate
from camera_drivers.image_source import Frame
from camera_drivers.image_stamps import ImageStamps
from camera_drivers.source_factory import make_source
from camera_drivers.source_url import DEVICE_KINDS, SourceKind

# How long a thread may take to end, beyond the source's own time limits.
STOP_MARGIN_S = 1.0


class CameraDriver(ManagedNode):
    """A camera under lifecycle control; the device is held only while the node is active."""

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__("camera_driver", PARAMETERS, part="camera", **node_arguments)
        self._config: CameraConfig | None = None
        self._camera_name = ""
        self._frame_id = ""
        self._calibration: Calibration | None = None
        self._calibration_path = Path()
        self._calibration_remark = ""
        self._last_size = (0, 0)
        self._last_reason = ""
        self._stamps = ImageStamps()
        self._stop = threading.Event()
        self._loop: CaptureLoop | None = None
        self._publishing: threading.Thread | None = None
        self._image: LifecyclePublisher | None = None
        self._compressed: LifecyclePublisher | None = None
        self._camera_info: LifecyclePublisher | None = None
        self.create_service(SetCameraInfo, "set_camera_info", self._set_camera_info)

    # --- lifecycle --------------------------------------------------------------------------------

    def configure(self, values: dict[str, Any]) -> None:
        """Check the parameters, load the calibration and create the publishers."""
        config = config_from(values)
        self._load_calibration(values["camera_info_url"], values["camera_name"])
        self._config = config
        self._camera_name = values["camera_name"]
        self._frame_id = values["frame_id"]
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE
            if values["reliable"]
            else ReliabilityPolicy.BEST_EFFORT,
        )
        self._image = self.hold(self.create_lifecycle_publisher(Image, "image_raw", qos))
        self._compressed = self.hold(
            self.create_lifecycle_publisher(CompressedImage, "image_raw/compressed", qos)
        )
        self._camera_info = self.hold(
            self.create_lifecycle_publisher(CameraInfo, "camera_info", qos)
        )

    def activate(self) -> None:
        """Start to capture; a camera that is not there yet is connected when it comes."""
        # Run-time parameters may have changed since configure.
        config = self._config = config_from(self.values())
        self._stop = threading.Event()
        self._last_reason = ""
        self._stamps = ImageStamps()
        loop = CaptureLoop(
            make_source(config, self._stop),
            self._stop,
            Backoff(config.reconnect_initial_s, config.reconnect_max_s),
            frozen_limit_frames=config.frozen_limit_frames
            if config.url.kind in DEVICE_KINDS
            else 0,
            on_change=self._on_change,
            on_bad_frame=self._on_bad_frame,
        )
        self._loop = loop
        self._publishing = threading.Thread(
            target=self._publish_frames, args=(loop,), name="camera publishing", daemon=True
        )
        loop.start()
        self._publishing.start()

    def rest(self, reason: str) -> None:
        """Stop capturing and let go of the device."""
        if self._loop is None or self._config is None:
            return
        limit_s = max(self._config.open_timeout_s, self._config.read_timeout_s) + STOP_MARGIN_S
        self._stop.set()
        if self._publishing is not None:
            self._publishing.join(STOP_MARGIN_S)
        if not self._loop.stop(limit_s):
            self.get_logger().error(
                f"{self._config.url.label} did not let go within {limit_s:g} s; "
                "the device stays in use until it does"
            )
        self._loop = None

    def release(self) -> None:
        """Forget the configuration."""
        self._image = self._compressed = self._camera_info = None
        self._config = None
        self._calibration = None

    # --- parameters -------------------------------------------------------------------------------

    def check_values(self, values: dict[str, Any]) -> None:
        """Refuse what does not fit together."""
        if self.configured:
            config_from(values)

    def values_changed(self, values: dict[str, Any]) -> None:
        """Set the camera's controls."""
        if self._config is None or self._loop is None:
            return
        before = self._config.controls
        self._config = config_from(values)
        if self._config.controls != before:
            self._loop.set_controls(self._config.controls)

    # --- calibration ------------------------------------------------------------------------------

    def _load_calibration(self, url: str, camera_name: str) -> None:
        path = resolve_url(url or DEFAULT_URL, camera_name, get_package_share_directory)
        self._calibration_path = path
        self._calibration = None
        self._calibration_remark = ""
        if url or path.exists():
            try:
                self._calibration = load_calibration(path)
            except UnknownDistortionError as error:
                # The images are as good as without: whoever needs the calibration sees that it is
                # not there.
                self._remark(f"{error}: camera_info is uncalibrated")
                return
            self._remark(self._calibration.remark)
            self.get_logger().info(f"calibration: {path}")
            if self._calibration.camera_name != camera_name:
                self.get_logger().warning(
                    f"{path} was made for the camera '{self._calibration.camera_name}', "
                    f"this one is '{camera_name}'"
                )

    def _remark(self, text: str) -> None:
        self._calibration_remark = text
        if text:
            self.get_logger().warning(text)

    def _current_calibration(self) -> Calibration | None:
        if self._calibration is not None or self._config is None or self._config.rotation_deg:
            return self._calibration
        report = self._loop.status().report if self._loop is not None else None
        return report.calibration if report is not None else None

    def _set_camera_info(
        self, request: SetCameraInfo.Request, response: SetCameraInfo.Response
    ) -> SetCameraInfo.Response:
        info = request.camera_info
        response.success = False
        if self._config is None:
            response.status_message = "the node is not configured; configure it first"
            return response
        if self._last_size != (0, 0) and self._last_size != (info.width, info.height):
            response.status_message = (
                f"the calibration is for {info.width}x{info.height}, "
                f"the images are {self._last_size[0]}x{self._last_size[1]}"
            )
            return response
        try:
            calibration = calibration_from_message(info, self._camera_name)
            save_calibration(self._calibration_path, calibration)
        except (CalibrationError, OSError) as error:
            response.status_message = f"not stored: {error}"
            return response
        self._calibration = calibration
        self._remark(calibration.remark)
        response.success = True
        response.status_message = f"stored in {self._calibration_path}"
        return response

    # --- images -----------------------------------------------------------------------------------

    def _publish_frames(self, loop: CaptureLoop) -> None:
        while not self._stop.is_set():
            frame = loop.take(timeout_s=STOP_MARGIN_S / 2)
            if frame is None or self._stop.is_set():
                continue
            try:
                self._publish(frame)
            except Exception as error:
                # One bad frame must not end the thread, or the camera would go dark unnoticed.
                self.get_logger().error(
                    f"a frame was not published: {type(error).__name__}: {error}",
                    throttle_duration_sec=5.0,
                )

    def _publish(self, frame: Frame) -> None:
        assert self._config and self._image and self._compressed and self._camera_info
        stamp = self._stamp(frame.capture_s)
        image = rotate(frame.image, self._config.rotation_deg)
        self._last_size = (image.shape[1], image.shape[0])
        if self._image.get_subscription_count():
            self._image.publish(image_message(image, stamp, self._frame_id))
        if self._compressed.get_subscription_count():
            quality = int(self.get_parameter("jpeg_quality").value)
            self._compressed.publish(compressed_message(image, stamp, self._frame_id, quality))
        self._camera_info.publish(
            camera_info_message(self._current_calibration(), self._last_size, stamp, self._frame_id)
        )

    def _stamp(self, capture_s: float) -> Time:
        """The time of capture on the node's clock; zero where simulated time has not begun."""
        now = self.get_clock().now()
        nanoseconds, set_back_s = self._stamps.stamp(now.nanoseconds, time.monotonic() - capture_s)
        if set_back_s:
            self.get_logger().warning(
                f"the clock was set back by {set_back_s:.3f} s, and the images' stamps with it"
            )
        return ClockTime(nanoseconds=nanoseconds, clock_type=now.clock_type).to_msg()

    # --- diagnostics ------------------------------------------------------------------------------

    def _on_change(self, status: CaptureStatus) -> None:
        if self._config is None or self._stop.is_set():
            return
        label, logger = self._config.url.label, self.get_logger()
        if status.state is CaptureState.STREAMING and status.report is not None:
            report = status.report
            size = f"{report.width}x{report.height}" if report.width else "images"
            extras = "".join(f", {key} {value}" for key, value in report.values.items())
            logger.info(f"{label}: {size} at {report.frame_rate_hz:g} Hz{extras}")
            for difference in report.differences:
                logger.warning(f"{label}: {difference}")
            self._last_reason = ""
        elif status.state is CaptureState.RETRYING and status.reason != self._last_reason:
            logger.warning(f"no image: {status.reason}; trying again")
            self._last_reason = status.reason
        elif status.state is CaptureState.ENDED:
            logger.info(f"{label}: the recording has ended")
        self.report()

    def _on_bad_frame(self, reason: str) -> None:
        self.get_logger().warning(f"left out: {reason}", throttle_duration_sec=5.0)

    def _condition(self) -> Condition:
        config, loop = self._config, self._loop
        if config is None:
            return Condition(Level.OK, "not configured", {})
        if loop is None:
            return Condition(Level.OK, "inactive", {})
        notes = [self._calibration_remark] if self._calibration_remark else []
        calibration = self._calibration
        if calibration is not None and self._last_size != (0, 0):
            expected = (calibration.width, calibration.height)
            if expected != self._last_size:
                notes.append(
                    f"the calibration is for {expected[0]}x{expected[1]}, the images are "
                    f"{self._last_size[0]}x{self._last_size[1]}: camera_info is uncalibrated"
                )
        is_live = config.url.kind in DEVICE_KINDS | {SourceKind.STREAM}
        return judge(
            loop.status(),
            max_age_s=float(self.get_parameter("max_age_s").value),
            frozen_limit_frames=config.frozen_limit_frames if is_live else 0,
            notes=tuple(notes),
        )

    def report(self) -> None:
        """Publish the diagnostics."""
        condition = self._condition()
        name = self._camera_name or str(self.get_parameter("camera_name").value)
        self.diagnostics.part = name
        self.publish_health(
            bytes([condition.level]),
            condition.message,
            condition.values,
            hardware_id=self._config.url.label if self._config is not None else "",
        )


def main() -> int:
    """Run the node until it is interrupted; return the exit status."""
    return run_node("camera_driver", lambda _: CameraDriver())


if __name__ == "__main__":
    sys.exit(main())
