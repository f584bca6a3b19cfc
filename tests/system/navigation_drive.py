"""A simulated robot that drives over a map, and what is seen of it from outside."""

import contextlib
import math
import time

from geometry_msgs.msg import Pose2D, Twist
from launched import wait_until
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry
from policy_interfaces.action import NavigateToGoal
from policy_interfaces.msg import BaseSimStatus
from policy_interfaces.srv import LoadMap, ResetWorld
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from spun_nodes import call

START_S = 90.0
STANDS_M_S = 0.03
DRIVES_M_S = 0.15


class BaseWatcher(Node):
    """Notes how the base moves and what it is told."""

    def __init__(self, context):
        super().__init__("base_watcher", context=context)
        self.speeds = []  # (receive time [s], forward speed [m/s], yaw rate [rad/s])
        self.commands = []  # (receive time [s], forward speed [m/s])
        self.truth = None
        self.goals = ActionClient(self, NavigateToGoal, "/navigator/navigate_to_goal")
        newest = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.create_subscription(Odometry, "/odom", self._on_odometry, newest)
        self.create_subscription(Twist, "/cmd_vel", self._on_command, 50)
        self.create_subscription(BaseSimStatus, "/robot_sim/base_status", self._on_truth, 10)

    def _on_odometry(self, message):
        twist = message.twist.twist
        self.speeds.append((time.monotonic(), twist.linear.x, twist.angular.z))

    def _on_command(self, message):
        self.commands.append((time.monotonic(), message.linear.x))

    def _on_truth(self, message):
        self.truth = message

    @property
    def drives(self):
        """The base has driven for the last half second."""
        recent = [v for t, v, _ in list(self.speeds) if t > time.monotonic() - 0.5]
        return len(recent) > 8 and min(recent) > DRIVES_M_S

    def stop_time_s(self, since_s):
        """From `since_s` until the base stood for good."""
        wait_until(
            lambda: (
                len([t for t, v, w in list(self.speeds) if t > time.monotonic() - 0.5]) > 5
                and all(
                    abs(v) < STANDS_M_S and abs(w) < 0.1
                    for t, v, w in list(self.speeds)
                    if t > time.monotonic() - 0.5
                )
            ),
            10.0,
            "the base did not stop",
        )
        moving = [t for t, v, w in list(self.speeds) if abs(v) >= STANDS_M_S or abs(w) >= 0.1]
        return max(moving) - since_s

    def commanded_s(self, since_s):
        """From `since_s` until the base was told to drive for the last time; call it at rest."""
        driving = [t for t, v in list(self.commands) if abs(v) >= STANDS_M_S]
        return max(driving) - since_s

    def call(self, service_type, name, request):
        return call(self, service_type, name, request, START_S)

    def _wait_for_node(self, name):
        """A killed node seems to offer its services for a while: wait until one answers."""
        client = self.create_client(GetState, f"/{name}/get_state")
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s:
            if client.wait_for_service(timeout_sec=1.0):
                future = client.call_async(GetState.Request())
                with contextlib.suppress(AssertionError):
                    wait_until(future.done, 2.0, "no answer")
                    return
        raise AssertionError(f"{name} does not answer")

    def activate(self, name):
        self._wait_for_node(name)
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            request = ChangeState.Request(transition=Transition(id=transition))
            assert self.call(ChangeState, f"/{name}/change_state", request).success, name

    def put(self, mapped, index, blocked=()):
        """Put the robot on the mapped way."""
        x, y, yaw = mapped.poses[index]
        request = ResetWorld.Request(
            world=mapped.kind,
            seed=mapped.seed,
            robot=mapped.robot,
            start=Pose2D(x=x, y=y, theta=yaw),
            use_start=True,
            blocked=list(blocked),
        )
        answer = self.call(ResetWorld, "/robot_sim/reset_world", request)
        assert answer.success, answer.message

    def load(self, path):
        answer = self.call(LoadMap, "/navigator/load_map", LoadMap.Request(path=str(path)))
        assert answer.success, answer.message

    def navigate(self, goal, timeout_s=0.0):
        """Send a goal; return the future of its result."""
        assert self.goals.wait_for_server(timeout_sec=START_S)
        sent = self.goals.send_goal_async(
            NavigateToGoal.Goal(goal_node=str(goal), timeout_s=timeout_s)
        )
        wait_until(sent.done, START_S, "the navigator did not answer")
        assert sent.result().accepted
        return sent.result().get_result_async()

    def away_m(self, mapped, node):
        """True distance to where a node was mapped."""
        position = self.truth.pose.position
        return math.hypot(position.x - mapped.truth[node][0], position.y - mapped.truth[node][1])
