"""Subscribes to what a policy observes, and keeps the newest of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from node_common.image_conversion import ImageConverter, ImageError
from node_common.image_transport import image_source
from node_common.managed_node import ManagedNode
from node_common.polled_subscription import PolledSubscription
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from policy_server.deployment import CameraObservation, Deployment
from policy_server.observation_buffer import (
    END_EFFECTOR_STATE,
    FreshnessLimits,
    ObservationBuffer,
    Problem,
    Snapshot,
    camera_source,
)
from policy_server.observation_sources import STATE_SOURCES, Reader
from policy_server.preprocessing import RESIZE_RULES

_SENSOR_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
_REFUSED_PERIOD_S = 5.0


class Observer:
    """The topics that a policy observes, while its node is configured.

    Args:
        node: holds the subscriptions; what arrives while it is not active is left out.
        spec: of the policy.
        transport: of images, see `node_common.image_transport`.
        limits: when data may be acted upon.
        on_refused_command: called when the arm controller has refused commands.

    Attributes:
        buffer: the newest of it.
        converter: of the images.
        bad_images, bad_states: how many were refused since `clear`.
    """

    def __init__(
        self,
        node: ManagedNode,
        spec: Deployment,
        transport: str,
        limits: FreshnessLimits,
        on_refused_command: Callable[[], object],
    ) -> None:
        self._node = node
        self._on_refused_command = on_refused_command
        self._refused_commands = 0
        self._has_cameras = bool(spec.cameras)
        self._readers: dict[str, dict[str, Reader]] = {}
        for state in spec.states:
            if source := STATE_SOURCES.get(state.kind):
                readers = self._readers.setdefault(state.kind, {})
                readers[state.name] = source.make_reader(state)
        if not spec.cameras and not self._readers:
            self._readers[END_EFFECTOR_STATE] = {}  # its stamps tell what a command comes from
        by_camera: dict[str, list[CameraObservation]] = {}
        for camera in spec.cameras:
            by_camera.setdefault(camera.camera, []).append(camera)
        log = node.get_logger()
        self.converter = ImageConverter(lambda text: log.warning(text))
        self.buffer = ObservationBuffer(
            (*map(camera_source, by_camera), *self._readers), limits, lambda text: log.warning(text)
        )
        self.bad_images = self.bad_states = 0
        for name, observations in by_camera.items():
            message_type, topic = image_source(transport, name)
            take = functools.partial(self._on_image, camera_source(name), observations)
            node.hold(node.create_subscription(message_type, topic, take, _SENSOR_QOS))
        self._states = {
            kind: node.hold(
                PolledSubscription(
                    node, STATE_SOURCES[kind].message_type, STATE_SOURCES[kind].topic
                )
            )
            for kind in self._readers
        }

    def clear(self) -> None:
        """Forget all data and counts."""
        self.buffer.clear()
        self.bad_images = self.bad_states = 0

    def observe(self) -> Snapshot | Problem:
        """Return the newest data, or why it must not be acted upon."""
        if not self._has_cameras:
            self._poll_states()
        return self.buffer.take(self._now_ns())

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def _on_image(
        self,
        source: str,
        observations: Sequence[CameraObservation],
        message: Image | CompressedImage,
    ) -> None:
        """Shrink the image when it arrives, so that a tick only has to infer and publish."""
        if not self._node.active:
            return
        try:
            values = {
                camera.name: self.converter.network_image(
                    message, camera.size, RESIZE_RULES[camera.resize]
                )
                for camera in observations
            }
        except ImageError as error:
            self.buffer.refuse(source, str(error))
            self._count_bad_image(str(error))
            return
        # The states of the same moment, as in the training data.
        self._poll_states()
        refusal = self.buffer.put(source, values, _nanoseconds(message), self._now_ns())
        if refusal:
            self._count_bad_image(refusal)

    def _count_bad_image(self, reason: str) -> None:
        self.bad_images += 1
        self._node.get_logger().error(
            f"image refused: {reason}", throttle_duration_sec=_REFUSED_PERIOD_S
        )

    def _poll_states(self) -> None:
        for kind, subscription in self._states.items():
            message = subscription.take()
            if message is None:
                continue
            if kind == END_EFFECTOR_STATE:
                before, self._refused_commands = self._refused_commands, message.refused_commands
                if message.refused_commands != before:
                    self._on_refused_command()
            if refusal := self._put(kind, message):
                self.bad_states += 1
                self._node.get_logger().error(
                    f"state refused: {refusal}", throttle_duration_sec=_REFUSED_PERIOD_S
                )

    def _put(self, kind: str, message: Any) -> str:
        """Keep the values of a message; return why they were refused, "" when they were not."""
        try:
            values = {name: read(message) for name, read in self._readers[kind].items()}
            for value in values.values():
                if not np.isfinite(value).all():
                    raise ValueError(f"not finite: found {value.tolist()}, expected finite numbers")
        except ValueError as error:
            self.buffer.refuse(kind, str(error))
            return str(error)
        now_ns = self._now_ns()
        stamp_ns = _nanoseconds(message) if hasattr(message, "header") else now_ns
        return self.buffer.put(kind, values, stamp_ns, now_ns)


def _nanoseconds(message: Any) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
