"""Action servers whose goals run in threads of their own, and can be ended at any moment."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node

Work = TypeVar("Work")
_CANCELING_S = 1.0


class ThreadedActionServer(ActionServer):
    """Runs each accepted goal in a new thread, so that one executor thread serves the node.

    rclpy would run a goal in the executor: a single-threaded one then answers nothing for the
    goal's whole duration, and a multi-threaded one costs more CPU for every message received.
    """

    def notify_execute(
        self,
        goal_handle: ServerGoalHandle[Any, Any, Any],
        execute_callback: Callable[[ServerGoalHandle[Any, Any, Any]], Any] | None,
    ) -> None:
        """Start the goal's thread; its result is handed to the executor when it is there."""
        callback = execute_callback or self._execute_callback

        def run() -> None:
            try:
                result = callback(goal_handle)
            except Exception as error:
                failure = error

                # rclpy logs it and aborts the goal.
                def deliver(_: object) -> Any:
                    raise failure
            else:

                def deliver(_: object) -> Any:
                    return result

            ActionServer.notify_execute(self, goal_handle, deliver)

        threading.Thread(target=run, name="goal", daemon=True).start()


class GoalEnd(enum.Enum):
    """The state in which a goal ends."""

    SUCCEEDED = enum.auto()
    CANCELED = enum.auto()
    ABORTED = enum.auto()


class GoalServer(Generic[Work]):
    """Serves an action; each goal comes with something by which it can be ended.

    Args:
        node: that serves it.
        action_type: of the action.
        name: of the action.
        begin: makes the work of a goal from its request, before the goal's thread starts: no
            cancellation comes too early to be heard.
        execute: does the work, in the goal's thread; returns how it ended, and the result.
        cancel: ends the work from another thread.
    """

    def __init__(
        self,
        node: Node,
        action_type: Any,
        name: str,
        *,
        begin: Callable[[Any], Work],
        execute: Callable[[ServerGoalHandle[Any, Any, Any], Work], tuple[GoalEnd, Any]],
        cancel: Callable[[Work], None],
    ) -> None:
        self._begin, self._execute, self._cancel = begin, execute, cancel
        self._works: dict[bytes, Work] = {}
        self._server = ThreadedActionServer(
            node,
            action_type,
            name,
            self._on_goal,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel,
        )

    def _on_accepted(self, goal_handle: ServerGoalHandle[Any, Any, Any]) -> None:
        self._works[_key(goal_handle)] = self._begin(goal_handle.request)
        goal_handle.execute()

    def _on_cancel(self, goal_handle: ServerGoalHandle[Any, Any, Any]) -> CancelResponse:
        work = self._works.get(_key(goal_handle))
        if work is None:
            return CancelResponse.REJECT
        self._cancel(work)
        return CancelResponse.ACCEPT

    def _on_goal(self, goal_handle: ServerGoalHandle[Any, Any, Any]) -> Any:
        try:
            end, result = self._execute(goal_handle, self._works[_key(goal_handle)])
        finally:
            del self._works[_key(goal_handle)]
        if end is GoalEnd.SUCCEEDED:
            goal_handle.succeed()
        elif end is GoalEnd.CANCELED and _becomes_canceling(goal_handle):
            goal_handle.canceled()
        else:
            goal_handle.abort()
        return result


def _becomes_canceling(goal_handle: ServerGoalHandle[Any, Any, Any]) -> bool:
    """Wait for it: a goal becomes "canceling" only after the cancel callback has returned."""
    deadline_s = time.monotonic() + _CANCELING_S
    while not goal_handle.is_cancel_requested and time.monotonic() < deadline_s:
        time.sleep(0.001)
    return bool(goal_handle.is_cancel_requested)


def _key(goal_handle: ServerGoalHandle[Any, Any, Any]) -> bytes:
    return bytes(goal_handle.goal_id.uuid)
