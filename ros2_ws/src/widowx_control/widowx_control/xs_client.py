"""Calls the public services of an Interbotix xs_sdk driver (or of the simulator) with timeouts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from interbotix_xs_msgs.srv import RegisterValues, RobotInfo
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import JointState

from widowx_control.kinematics import JOINT_LOWER_RAD, JOINT_NAMES, JOINT_UPPER_RAD

ARM_GROUP = "arm"
GRIPPER = "gripper"
_POLL_S = 0.2
_ANSWER_TIMEOUT_S = 2.0
"""A driver that is there answers at once. Shutting down beside one that has just ended must not
take longer than a launch waits before it kills."""
_ASK_AGAIN_S = 0.7
"""A service that has not discovered this client yet drops its answer. Every request here may be
repeated: they read, or write one value."""


class DriverError(RuntimeError):
    """The driver is absent, does not answer, or drives another robot."""


class XsClient:
    """Blocking calls on a hidden node of its own.

    The caller's executor may wait in the call, as a lifecycle transition does: the hidden node
    has its own executor, which runs only during a call.
    """

    def __init__(self, node: Node, timeout_s: float, interrupted: Callable[[], bool]) -> None:
        """Create the clients, with the names that `node` would use.

        Args:
            node: the node that the calls are for.
            timeout_s: how long to wait for a driver that is starting [s].
            interrupted: whether the process has been asked to end; ends every long wait.
        """
        self._timeout_s = timeout_s
        self._interrupted = interrupted
        self._node = Node(
            f"_{node.get_name()}_driver_client",
            namespace=node.get_namespace(),
            context=node.context,
            use_global_arguments=False,
            start_parameter_services=False,
            enable_rosout=False,
        )
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(self._node)
        self._joint_states = node.resolve_topic_name("joint_states")
        names = {
            name: node.resolve_service_name(name)
            for name in ("get_robot_info", "get_motor_registers", "set_motor_registers")
        }
        create = self._node.create_client
        self._info: Client = create(RobotInfo, names["get_robot_info"])
        self._get: Client = create(RegisterValues, names["get_motor_registers"])
        self._set: Client = create(RegisterValues, names["set_motor_registers"])

    def destroy(self) -> None:
        """Remove the hidden node."""
        self._executor.shutdown()
        self._node.destroy_node()

    def next_joint_states(self, timeout_s: float) -> JointState | None:
        """Return a message that arrived after the call began; None after the timeout.

        Raises:
            DriverError: interrupted.
        """
        future: Future[JointState] = Future(executor=self._executor)

        def take(message: JointState) -> None:
            if not future.done():
                future.set_result(message)

        subscription = self._node.create_subscription(JointState, self._joint_states, take, 1)
        deadline = time.monotonic() + timeout_s
        try:
            while not future.done() and (left_s := deadline - time.monotonic()) > 0:
                if self._interrupted():
                    raise DriverError("interrupted while waiting for joint_states")
                self._executor.spin_until_future_complete(future, min(left_s, _POLL_S))
        finally:
            self._node.destroy_subscription(subscription)
        return future.result() if future.done() else None

    def wait(self) -> None:
        """Wait for the driver's services.

        Raises:
            DriverError: one is missing after the timeout.
        """
        deadline = time.monotonic() + self._timeout_s
        for client in (self._info, self._get, self._set):
            while not client.wait_for_service(timeout_sec=_POLL_S):
                if self._interrupted():
                    raise DriverError("interrupted while waiting for the arm's driver")
                if time.monotonic() < deadline:
                    continue
                raise DriverError(
                    f"no service {client.service_name} after {self._timeout_s} s: "
                    "is the arm's driver (xs_sdk) or the simulator running in this namespace?"
                )

    def check_robot(self) -> None:
        """Check that the driver has this arm, in the modes that the controller commands.

        Raises:
            DriverError: with what was found and what was expected.
        """
        arm = self._call(self._info, RobotInfo.Request(cmd_type="group", name=ARM_GROUP))
        if tuple(arm.joint_names) != JOINT_NAMES:
            raise DriverError(
                f"the driver's group '{ARM_GROUP}' has joints [{', '.join(arm.joint_names)}], "
                f"expected [{', '.join(JOINT_NAMES)}]: is this a wx250s?"
            )
        if arm.mode != "position":
            raise DriverError(
                f"the driver's group '{ARM_GROUP}' is in mode '{arm.mode}', expected 'position'; "
                "set it in the driver's mode file or with set_operating_modes"
            )
        for found, expected, side in (
            (arm.joint_lower_limits, JOINT_LOWER_RAD, "lower"),
            (arm.joint_upper_limits, JOINT_UPPER_RAD, "upper"),
        ):
            for name, a, b in zip(JOINT_NAMES, found, expected, strict=False):
                if abs(a - b) > 0.01:
                    raise DriverError(
                        f"the driver's {side} limit of {name} is {a:.4f} rad, the URDF's is "
                        f"{b:.4f}: is this a wx250s?"
                    )
        gripper = self._call(self._info, RobotInfo.Request(cmd_type="single", name=GRIPPER))
        if gripper.mode != "pwm":
            raise DriverError(
                f"the driver's '{GRIPPER}' is in mode '{gripper.mode}', expected 'pwm'; "
                "set it in the driver's mode file or with set_operating_modes"
            )

    def read_register(self, register: str) -> list[int]:
        """Return a register of each arm joint.

        Raises:
            DriverError: a servo did not answer.
        """
        answer = self._call(
            self._get, RegisterValues.Request(cmd_type="group", name=ARM_GROUP, reg=register)
        )
        values = [int(v) for v in answer.values]
        if len(values) != len(JOINT_NAMES):
            raise DriverError(
                f"the driver returned {register} of {len(values)} servos, expected "
                f"{len(JOINT_NAMES)}: a servo does not answer or is in a latched fault; "
                "see the driver's log, and reboot it with reboot_motors"
            )
        return values

    def write_register(self, register: str, values: list[int]) -> None:
        """Write a register of each arm joint: at once when all values are equal, else one by one.

        Raises:
            DriverError: the driver did not answer.
        """
        if len(set(values)) == 1:
            targets = [("group", ARM_GROUP, values[0])]
        else:
            targets = [
                ("single", name, value) for name, value in zip(JOINT_NAMES, values, strict=True)
            ]
        for kind, name, value in targets:
            self._call(
                self._set,
                RegisterValues.Request(cmd_type=kind, name=name, reg=register, value=value),
            )

    def _call(self, client: Client, request: Any) -> Any:
        if not client.service_is_ready():
            raise DriverError(f"{client.service_name} is gone: has the driver ended?")
        timeout_s = min(self._timeout_s, _ANSWER_TIMEOUT_S)
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            future = client.call_async(request)
            self._executor.spin_until_future_complete(future, min(left_s, _ASK_AGAIN_S))
            if future.done():
                return future.result()
            client.remove_pending_request(future)
        raise DriverError(f"{client.service_name} did not answer within {timeout_s} s")
