"""A node's health on `/diagnostics`, in the form that every monitor of ROS reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class Diagnostics:
    """Publishes what a node tells of itself.

    Args:
        node: whose health it is.
        part: what of the node, as in "arm_controller: control".
        name: of the node, None: its full name without the leading slash.
        hardware_id: the device, if it is the same all the time.

    Attributes:
        part: may be changed.
    """

    def __init__(
        self, node: Node, part: str, *, name: str | None = None, hardware_id: str = ""
    ) -> None:
        self._node = node
        self.part = part
        self._name = name or node.get_fully_qualified_name().lstrip("/")
        self._hardware_id = hardware_id
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)

    def publish(
        self,
        level: bytes,
        message: str,
        values: Mapping[str, Any],
        *,
        hardware_id: str = "",
        stamp: Time | None = None,
    ) -> None:
        """Publish now.

        Args:
            level: `OK`, `WARN` or `ERROR`.
            message: in words.
            values: figures by name; written as `str` writes them.
            hardware_id: the device, if it was not given before.
            stamp: None: the present time of the node's clock.
        """
        status = DiagnosticStatus(
            level=level,
            name=f"{self._name}: {self.part}",
            message=message,
            hardware_id=hardware_id or self._hardware_id,
            values=key_values(values),
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = stamp or self._node.get_clock().now().to_msg()
        self._publisher.publish(array)


def key_values(values: Mapping[str, Any]) -> list[KeyValue]:
    """Figures by name in the form of the message."""
    return [KeyValue(key=key, value=str(value)) for key, value in values.items()]
