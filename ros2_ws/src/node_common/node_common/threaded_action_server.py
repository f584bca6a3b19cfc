"""An action server whose goals run in threads of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rclpy.action import ActionServer
from rclpy.action.server import ServerGoalHandle


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
