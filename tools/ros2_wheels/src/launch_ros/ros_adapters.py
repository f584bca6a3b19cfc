"""The ROS node with which launch itself watches and steers nodes."""

from __future__ import annotations

import contextlib
import os
import threading

import rclpy
from launch import LaunchContext
from launch.event_handlers import OnShutdown
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node


class ROSAdapter:
    """A node that spins in a thread, in a ROS context of its own."""

    def __init__(self, *, argv: list[str] | None = None) -> None:
        self.argv = argv or []
        self.ros_context = rclpy.Context()
        rclpy.init(args=self.argv, context=self.ros_context)
        self.ros_node: Node = rclpy.create_node(
            f"launch_ros_{os.getpid()}", context=self.ros_context
        )
        self.ros_executor = SingleThreadedExecutor(context=self.ros_context)
        self.ros_executor.add_node(self.ros_node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self.ros_executor.spin()

    def shutdown(self) -> None:
        """Stop spinning and destroy the node; a second call does nothing."""
        if self.ros_context.ok():
            self.ros_context.try_shutdown()
            self._thread.join(timeout=5.0)
            self.ros_node.destroy_node()


def get_ros_adapter(context: LaunchContext) -> ROSAdapter:
    """Return the adapter of this launch, creating it on first use."""
    adapter = context.get_locals_as_dict().get("ros_adapter")
    if adapter is None:
        adapter = ROSAdapter()
        context.extend_globals({"ros_adapter": adapter})
        context.register_event_handler(OnShutdown(on_shutdown=lambda e, c: adapter.shutdown()))
    return adapter


def get_ros_node(context: LaunchContext) -> Node:
    """Return the node of this launch, creating it on first use."""
    return get_ros_adapter(context).ros_node
