"""Calls the public services of an Interbotix xs_sdk driver (or of the simulator) with timeouts."""

from __future__ import annotations

import threading
import time
from typing import Any

from interbotix_xs_msgs.srv import RegisterValues, RobotInfo
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.client import Client
from rclpy.node import Node

from widowx_control.kinematics import JOINT_LOWER_RAD, JOINT_NAMES, JOINT_UPPER_RAD

ARM_GROUP = "arm"
GRIPPER = "gripper"


class DriverError(RuntimeError):
    """The driver is absent, does not answer, or drives another robot."""


class XsClient:
    """Blocking calls; use them from a callback of a multi-threaded executor only."""

    def __init__(self, node: Node, timeout_s: float) -> None:
        """Create the clients in a callback group of their own, so that answers get through."""
        group = ReentrantCallbackGroup()
        self._node = node
        self._timeout_s = timeout_s
        self._info = node.create_client(RobotInfo, "get_robot_info", callback_group=group)
        self._get = node.create_client(RegisterValues, "get_motor_registers", callback_group=group)
        self._set = node.create_client(RegisterValues, "set_motor_registers", callback_group=group)

    def destroy(self) -> None:
        """Remove the clients from the node."""
        for client in (self._info, self._get, self._set):
            self._node.destroy_client(client)

    def wait(self) -> None:
        """Wait for the driver's services.

        Raises:
            DriverError: one is missing after the timeout.
        """
        deadline = time.monotonic() + self._timeout_s
        for client in (self._info, self._get, self._set):
            if not client.wait_for_service(timeout_sec=max(0.0, deadline - time.monotonic())):
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
        done = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        if not done.wait(self._timeout_s):
            client.remove_pending_request(future)
            raise DriverError(f"{client.service_name} did not answer within {self._timeout_s} s")
        return future.result()
