"""Builds a topological map while somebody drives the robot."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any

from nav_msgs.msg import Odometry
from node_common.declared_parameters import declare_parameters
from node_common.diagnostics import OK, WARN, Diagnostics
from node_common.image_conversion import ImageConverter, ImageError
from node_common.image_transport import IMAGE_TRANSPORT, image_source
from node_common.parameters import NodeParameter
from node_common.running import run_node
from node_common.strict_yaml import BundleError
from node_common.topic_watch import TopicWatch
from policy_server.bundle import MODEL_PATH_VARIABLE, find_bundle, model_search_path
from policy_server.engine import InferenceError
from policy_server.navigation_model import load_navigation_model
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from gnm_nav.build_map import describe
from gnm_nav.map_building import BuilderConfig, MapBuilder
from gnm_nav.map_directory import MAP_FILE, save_map
from gnm_nav.planar_pose import OdometryHistory, odometry_pose
from gnm_nav.topological_map import MapError

PARAMETERS = (
    NodeParameter("map", "", "Directory to write; must be given", structural=True),
    NodeParameter("overwrite", False, "Replace a map that is there already", structural=True),
    NodeParameter(
        "bundle",
        "gnm_sim",
        "Navigation model: path of a bundle, or its name below "
        f"{MODEL_PATH_VARIABLE} (default: models/ here or above)",
        structural=True,
    ),
    IMAGE_TRANSPORT,
    NodeParameter("threads", 1, "CPU threads of the model", 1, 64, structural=True),
    NodeParameter(
        "spacing_steps", 4.0, "Model steps between two nodes", 0.5, 15.0, structural=True
    ),
    NodeParameter("use_poses", True, "Keep poses of the topic odom as well", structural=True),
    NodeParameter(
        "new_drive_s",
        5.0,
        "A gap of this length between images begins another drive, joined only by loop closures",
        1.0,
        3600.0,
        structural=True,
    ),
    NodeParameter("save_on_exit", True, "Write the map when the node is stopped"),
)

_NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
_ODOMETRY = QoSProfile(depth=20, reliability=ReliabilityPolicy.BEST_EFFORT)
_WAITING_IMAGES = 20
_ODOMETRY_KEPT = 400
_ODOMETRY_GAP_S = 0.5
_SAVE_WAIT_S = 120.0


class MapBuilderNode(Node):
    """Node `map_builder`. See the package's README for its graph interface.

    Images are worked off by a thread of their own, in order; services and diagnostics answer all
    the time.
    """

    def __init__(self, **node_arguments: Any) -> None:
        """Load the network.

        Raises:
            ValueError: a parameter is wrong, the bundle is broken, or there is a map already.
        """
        super().__init__("map_builder", **node_arguments)
        declare_parameters(self, PARAMETERS)
        if not self._parameter("map"):
            raise ValueError("parameter map: found nothing, expected the directory to write")
        self._path = Path(self._parameter("map")).expanduser()
        if (self._path / MAP_FILE).exists() and not self._parameter("overwrite"):
            raise ValueError(f"{self._path}: found a map, expected a new path or overwrite:=true")
        start_points = [Path.cwd(), Path(__file__).resolve()]
        try:
            file = find_bundle(
                self._parameter("bundle"), model_search_path(os.environ, start_points)
            )
            model = load_navigation_model(file, self._parameter("threads"), "cpu")
        except (BundleError, InferenceError) as error:
            raise ValueError(str(error)) from None
        self._builder = MapBuilder(
            model,
            BuilderConfig(
                spacing_steps=self._parameter("spacing_steps"),
                new_drive_s=self._parameter("new_drive_s"),
            ),
        )
        # Of builder and counters.
        self._lock = threading.Lock()
        self._images: queue.Queue[Image | CompressedImage | None] = queue.Queue(_WAITING_IMAGES)
        self._odometry = OdometryHistory(_ODOMETRY_GAP_S, _ODOMETRY_KEPT)
        # Of the diagnostics before: images with and without a newer stamp.
        self._told = (0, 0)
        self._last_image_at_s: float | None = None
        self._dropped = self._bad = 0
        self._converter = ImageConverter(lambda text: self.get_logger().warning(text))
        self._fault = ""
        self._unsaved = False
        self._stopping = False
        self._worker = threading.Thread(target=self._work, name="map_builder", daemon=True)
        self._worker.start()
        self._topics = TopicWatch(self)
        source = image_source(self._parameter("image_transport"))
        images = self.create_subscription(*source, self._on_image, _NEWEST)
        self._topics.add(
            images, "set image_transport to raw or compressed, as it is published", one_sender=True
        )
        odometry = self.create_subscription(Odometry, "odom", self._on_odometry, _ODOMETRY)
        self._topics.add(odometry, one_sender=True)
        self.create_subscription(String, "~/name_node", self._on_name, 10)
        self.create_service(Trigger, "~/save", self._on_save)
        self._diagnostics = Diagnostics(self, "drive")
        # Steady: a node whose simulated clock stands must still say so.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._publish_diagnostics, clock=self._steady)
        self.get_logger().info(f"{model.spec.name} ({model.spec.kind}), map goes to {self._path}")

    def close(self) -> None:
        """Work off what waits, and write the map if that is wanted."""
        self._stopping = True
        self._images.put(None)
        self._worker.join(_SAVE_WAIT_S)
        if self._parameter("save_on_exit") and self._unsaved and len(self._builder):
            done, message = self._save()
            (self.get_logger().info if done else self.get_logger().error)(message)

    def _parameter(self, name: str) -> Any:
        return self.get_parameter(name).value

    # --- input -----------------------------------------------------------------------------

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._last_image_at_s = time.monotonic()
        try:
            self._images.put_nowait(message)
        except queue.Full:
            self._dropped += 1

    def _on_odometry(self, message: Odometry) -> None:
        if not self._parameter("use_poses"):
            return
        with self._lock:
            self._odometry.add(*odometry_pose(message))

    def _on_name(self, message: String) -> None:
        with self._lock:
            try:
                self._builder.name_node(message.data)
            except ValueError as error:
                self.get_logger().error(str(error))
                return
            self._unsaved = True
            node = len(self._builder) - 1
        self.get_logger().info(f"node {node} is named {message.data!r}")

    def _work(self) -> None:
        while (message := self._images.get()) is not None:
            try:
                self._add(message)
            except (ImageError, InferenceError, ValueError) as error:
                self._bad += 1
                self._fault = str(error)
                self.get_logger().error(str(error), throttle_duration_sec=2.0)

    def _add(self, message: Image | CompressedImage) -> None:
        image = self._converter.rgb(message)
        stamp_s = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
        with self._lock:
            jumps = len(self._builder.counts.jumps)
            if self._builder.add(image, stamp_s, self._odometry.at(stamp_s)) is not None:
                self._unsaved = True
        for at_s, jump_m in self._builder.counts.jumps[jumps:]:
            self.get_logger().warning(
                f"odometry jumps by {jump_m:.1f} m at {at_s:.3f} s, which no base drives"
            )

    # --- output ----------------------------------------------------------------------------

    def _on_save(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._save()
        (self.get_logger().info if response.success else self.get_logger().error)(response.message)
        return response

    def _save(self) -> tuple[bool, str]:
        try:
            with self._lock:
                finished = self._builder.finish(name=self._path.name, frame_id="odom")
                self._unsaved = False
            save_map(finished, self._path)
        except (MapError, OSError) as error:
            self._unsaved = True
            return False, str(error)
        return True, f"{self._path}: {describe(finished)}"

    def _publish_diagnostics(self) -> None:
        silent_s = None
        if self._last_image_at_s is not None:
            silent_s = time.monotonic() - self._last_image_at_s
        counts = self._builder.counts
        unheard = self._topics.problems()
        level = WARN
        if silent_s is None or silent_s > 1.0:
            silence = "no images" if silent_s is None else f"no image for {silent_s:.0f} s"
            text = "; ".join([silence, *unheard])
        elif unheard:
            text = "; ".join(unheard)
        elif counts.without_newer_stamp - self._told[1] > counts.taken - self._told[0]:
            text = counts.stamp_fault()
        elif self._fault:
            text = self._fault
        else:
            level, text = OK, "building"
        self._fault = ""
        self._told = (counts.taken, counts.without_newer_stamp)
        values = {
            "nodes": len(self._builder),
            "closure edges": self._builder.closures,
            "images taken": counts.taken,
            "images without newer stamp": counts.without_newer_stamp,
            "images dropped": self._dropped,
            "bad images": self._bad,
            "odometry jumps": len(counts.jumps),
            "unsaved": self._unsaved,
        }
        self._diagnostics.publish(level, text, values)


def main(arguments: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; return the exit status."""
    return run_node(
        "map_builder",
        lambda _: MapBuilderNode(),
        arguments=arguments,
        on_end=lambda node: node.close(),
    )


if __name__ == "__main__":
    sys.exit(main())
