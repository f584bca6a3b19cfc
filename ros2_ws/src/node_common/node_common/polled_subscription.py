"""A subscription that is read when its newest message is wanted, not whenever one arrives."""

from __future__ import annotations

from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy


class _NeverExecuted(CallbackGroup):
    """Keeps its entities out of the executor's wait set."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        """Nothing ends that never begins."""


class PolledSubscription:
    """Best-effort subscription that keeps only the newest message.

    An arm reports its state at 100 Hz and more while a policy looks 5 times a second: waking the
    executor for every message would cost more CPU than inference, at moments that delay it.

    Args:
        node: the node it belongs to.
        message_type: type of the messages.
        topic: topic name.
    """

    def __init__(self, node: Node, message_type: type, topic: str) -> None:
        self._node = node
        self._type = message_type
        self._subscription: Any = node.create_subscription(
            message_type,
            topic,
            lambda _: None,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
            callback_group=_NeverExecuted(),
        )

    def take(self) -> Any | None:
        """Return the newest message that was not taken yet, None when there is none."""
        handle = self._subscription.handle
        with handle:
            taken = handle.take_message(self._type, False)
        return None if taken is None else taken[0]

    def destroy(self) -> None:
        """Stop subscribing."""
        self._node.destroy_subscription(self._subscription)
