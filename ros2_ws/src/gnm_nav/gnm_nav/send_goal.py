"""Node `send_goal`: sends the navigator somewhere, says how it goes, and ends with the result."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import rclpy
from builtin_interfaces.msg import Time
from node_common.declared_parameters import declare_parameters
from node_common.image_conversion import ImageConverter, ImageError
from node_common.parameters import NodeParameter
from policy_interfaces.action import Explore, NavigateToGoal
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from gnm_nav.camera_image import image_message
from gnm_nav.topological_map import IMAGE_SUFFIXES

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
_FEEDBACK_PERIOD_S = 2.0
_SERVER_WAIT_S = 60.0
_CANCEL_WAIT_S = 5.0

PARAMETERS = (
    NodeParameter(
        "goal", "", 'Node, name, "last", or the path of a picture; empty: drive without a goal'
    ),
    NodeParameter(
        "timeout_s",
        0.0,
        "Time limit, or how long to drive without a goal; 0: none",
        0.0,
        1e6,
    ),
    NodeParameter("seed", 0, "Of driving without a goal", 0, 2**31 - 1),
)


class GoalError(ValueError):
    """A goal that cannot be sent."""


class GoalSender(Node):
    """One goal for the navigator."""

    def __init__(self) -> None:
        super().__init__("send_goal")
        declare_parameters(self, PARAMETERS)
        self._goal = str(self.get_parameter("goal").value).strip()
        timeout_s = self.get_parameter("timeout_s").value
        self._request: Any
        if self._goal:
            self._request = NavigateToGoal.Goal(timeout_s=timeout_s)
            is_image = self._goal.lower().endswith(IMAGE_SUFFIXES)
            if is_image and not Path(self._goal).expanduser().exists():
                print(f"send_goal: found no file {self._goal}: taken for a name", file=sys.stderr)
                is_image = False
            if is_image:
                self._request.goal_image = _read_picture(Path(self._goal))
            else:
                self._request.goal_node = self._goal
            action, name = NavigateToGoal, "navigator/navigate_to_goal"
        else:
            seed = self.get_parameter("seed").value
            self._request = Explore.Goal(duration_s=timeout_s, seed=seed)
            action, name = Explore, "navigator/explore"
        self._client: Any = ActionClient(self, action, name)
        self._said_s = -math.inf

    def run(self, stop: threading.Event) -> int:
        """Send the goal and wait for its end; return the exit status."""
        executor = SingleThreadedExecutor()
        executor.add_node(self)

        def wait(condition: Any, timeout_s: float, stoppable: bool = True) -> bool:
            deadline_s = time.monotonic() + timeout_s
            while not condition():
                if time.monotonic() > deadline_s or (stoppable and stop.is_set()):
                    return False
                executor.spin_once(timeout_sec=0.05)
            return True

        if not wait(self._client.server_is_ready, _SERVER_WAIT_S):
            print("send_goal: found no navigator to send a goal to", file=sys.stderr, flush=True)
            return EXIT_INTERRUPTED if stop.is_set() else EXIT_FAILED
        sent = self._client.send_goal_async(self._request, feedback_callback=self._on_feedback)
        if not wait(sent.done, _SERVER_WAIT_S) or not sent.result().accepted:
            print("send_goal: the navigator did not take the goal", file=sys.stderr, flush=True)
            return EXIT_FAILED
        handle = sent.result()
        ended = handle.get_result_async()
        if not wait(ended.done, math.inf):
            handle.cancel_goal_async()
            wait(ended.done, _CANCEL_WAIT_S, stoppable=False)
            return EXIT_INTERRUPTED
        result = ended.result().result
        good = result.reason == 0
        print(f"{'done' if good else 'FAILED'}: {result.message}", flush=True)
        return 0 if good else EXIT_FAILED

    def _on_feedback(self, message: Any) -> None:
        now_s = time.monotonic()
        if now_s - self._said_s < _FEEDBACK_PERIOD_S:
            return
        self._said_s = now_s
        feedback = message.feedback
        if isinstance(feedback, NavigateToGoal.Feedback):
            print(
                f"node {feedback.node}, {feedback.route_steps:.0f} steps to go, "
                f"confidence {feedback.confidence:.2f}: {feedback.message}",
                flush=True,
            )
        else:
            print(f"{feedback.elapsed_s:.0f} s: {feedback.message}", flush=True)


def _read_picture(path: Path) -> Any:
    try:
        image = ImageConverter().decode(path.expanduser().read_bytes())
    except (OSError, ImageError) as error:
        raise GoalError(f"goal is the picture {path}: {error}") from None
    return image_message(image, Time(), "goal")


def main(arguments: list[str] | None = None) -> int:
    """Send one goal; 0: reached, 1: not, 130: interrupted."""
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        node = GoalSender()
    except ValueError as error:
        print(f"send_goal: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return EXIT_FAILED
    try:
        return node.run(stop)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
        # A launch passes on the interruption that the terminal has sent already.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
