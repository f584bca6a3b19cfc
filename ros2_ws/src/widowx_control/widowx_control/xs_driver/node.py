"""Node `xs_driver`: the ROS interface of Interbotix's X-series driver over our own bus driver.

It translates messages, parameters and services; all behaviour is in `driver` and the modules that
it uses.
"""

from __future__ import annotations

import array
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from interbotix_xs_msgs.srv import (
    MotorGains,
    OperatingModes,
    Reboot,
    RegisterValues,
    RobotInfo,
    TorqueEnable,
)
from node_common.declared_parameters import declare_parameters
from node_common.diagnostics import key_values
from node_common.parameters import NodeParameter
from node_common.realtime import prefer_process, settle_process
from node_common.running import Ending, run_node
from rclpy.logging import LoggingSeverity
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from widowx_description import urdf_text

from widowx_control.gripper import finger_distance_m
from widowx_control.xs_driver.command_node import CommandNode
from widowx_control.xs_driver.configuration import (
    ArmConfiguration,
    ConfigurationError,
    Mode,
    load_configuration,
)
from widowx_control.xs_driver.control_table import MA_PER_UNIT
from widowx_control.xs_driver.diagnostics import entries
from widowx_control.xs_driver.driver import XsDriver
from widowx_control.xs_driver.driver_types import (
    SHOWN_CHARACTERS,
    DriverSettings,
    JointReading,
    ServiceFailed,
)
from widowx_control.xs_driver.package_files import default_modes, default_motors
from widowx_control.xs_driver.robot_info import limits_from_urdf, robot_info
from widowx_control.xs_driver.units import rad_from_ticks, rad_s_from_units

_QOS: Final = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
_SERVICE_TIMEOUT_S: Final = 30.0
"""A reboot of every servo takes about 5 s."""
_GAIN_REGISTERS: Final = {
    "Position_P_Gain": "kp_pos",
    "Position_I_Gain": "ki_pos",
    "Position_D_Gain": "kd_pos",
    "Feedforward_1st_Gain": "k1",
    "Feedforward_2nd_Gain": "k2",
    "Velocity_P_Gain": "kp_vel",
    "Velocity_I_Gain": "ki_vel",
}
_DIAGNOSTICS_PERIOD_S: Final = 1.0
_DIAGNOSTICS_PAUSE_S: Final = 0.05
"""Between two of them, however much happens."""
_LOGGING_LEVELS: Final = {
    "DEBUG": LoggingSeverity.DEBUG,
    "INFO": LoggingSeverity.INFO,
    "WARN": LoggingSeverity.WARN,
    "ERROR": LoggingSeverity.ERROR,
    "FATAL": LoggingSeverity.FATAL,
}


PARAMETERS: Final = (
    NodeParameter(
        "motor_configs", "", "YAML file of the motors, Interbotix's format; empty: wx250s"
    ),
    NodeParameter(
        "mode_configs", "", "YAML file of the start modes, Interbotix's format; empty: shipped"
    ),
    NodeParameter("load_configs", True, "write EEPROM values of motor_configs where they differ"),
    NodeParameter(
        "robot_description", "", "URDF that gives joint limits; empty: widowx_description"
    ),
    NodeParameter(
        "xs_driver_logging_level", "INFO", "of the driver's log", choices=tuple(_LOGGING_LEVELS)
    ),
    NodeParameter("port", "", "serial port; empty: as in the YAML files"),
    NodeParameter(
        "bus_watchdog_ms",
        160,
        "servos stop when they hear nothing for this long; 0 switches it off",
        0,
        2540,
        step=20,
    ),
    NodeParameter(
        "reply_margin_ms", 5.0, "how late an answer may be beyond its time on the wire", 1.0, 100.0
    ),
    NodeParameter(
        "open_loop_timeout_s",
        1.0,
        "velocity, current and PWM goals of joints fall to 0 when not repeated; 0: never",
        0.0,
        60.0,
    ),
    NodeParameter(
        "realtime_priority",
        20,
        "of the bus thread, where the system allows it; 0: ordinary scheduling",
        0,
        99,
    ),
    NodeParameter(
        "cycle_rate_hz",
        125.0,
        "of writing and reading; joint_states has its own rate, which also is the least here",
        20.0,
        250.0,
    ),
    NodeParameter("preempt_trajectories", False, "a new trajectory replaces the one that runs"),
    NodeParameter(
        "load_effort_scale_ma",
        1.4,
        "effort per unit (0.1 %) of Present_Load, for servos without a current sensor",
        0.0,
        100.0,
    ),
)


class XsDriverNode(Node):
    """See docs/xs_driver.md of the package for topics, services, parameters and behaviour."""

    def __init__(self, closing: threading.Event, **kwargs: Any) -> None:
        """Read parameters and configuration; `start` looks for the arm.

        Args:
            closing: set when the node shall end; services at work then give up.

        Raises:
            ConfigurationError: a file or a parameter is wrong.
        """
        super().__init__("xs_driver", **kwargs)
        declare_parameters(self, PARAMETERS, read_only=True)
        self.get_logger().set_level(_LOGGING_LEVELS[self._text("xs_driver_logging_level")])
        self._configuration: ArmConfiguration = load_configuration(
            Path(self._text("motor_configs") or default_motors()),
            Path(self._text("mode_configs") or default_modes()),
        )
        self.realtime_priority: int = self.get_parameter("realtime_priority").value
        try:
            self._limits = limits_from_urdf(self._text("robot_description") or urdf_text())
            settings = DriverSettings(
                port=self._text("port") or self._configuration.port,
                load_configs=self.get_parameter("load_configs").value,
                cycle_rate_hz=self.get_parameter("cycle_rate_hz").value,
                bus_watchdog_ms=self.get_parameter("bus_watchdog_ms").value,
                reply_margin_s=self.get_parameter("reply_margin_ms").value * 1e-3,
                open_loop_timeout_s=self.get_parameter("open_loop_timeout_s").value,
                realtime_priority=self.realtime_priority,
                preempt_trajectories=self.get_parameter("preempt_trajectories").value,
            )
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        self._effort_scale: dict[str, float] = {}
        self._load_scale = self.get_parameter("load_effort_scale_ma").value
        self._ids = {name: motor.servo_id for name, motor in self._configuration.motors.items()}
        self._names = list(self._configuration.joint_names())
        self._grippers = [
            self._configuration.joint_order.index(name) for name in self._configuration.grippers
        ]
        self._changed = threading.Event()
        self.driver = XsDriver(self._configuration, settings, self._publish, self._report)
        topic = self._configuration.joint_states_topic
        self._joint_states = self.create_publisher(JointState, topic, _QOS)
        self._commands = CommandNode(self.driver, self.realtime_priority)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._create_services()
        # A thread of its own: a service can keep the executor for seconds.
        self._closing = closing
        self._diagnosing = threading.Thread(
            target=self._diagnose, name="xs_driver_diagnostics", daemon=True
        )

    def start(self) -> None:
        """Start looking for the arm."""
        self._diagnosing.start()
        self.driver.start()
        self._commands.start()

    def destroy_node(self) -> None:
        """Hold the arm, leave the bus and end."""
        if hasattr(self, "_commands"):  # otherwise its constructor has failed
            self.driver.stop()
            self._closing.set()
            self._changed.set()
            if self._diagnosing.is_alive():
                self._diagnosing.join()
            self._commands.close()
        super().destroy_node()

    # --- parameters ----------------------------------------------------------------------------

    def _text(self, name: str) -> str:
        return str(self.get_parameter(name).value)

    # --- out: joint states, log, diagnostics ---------------------------------------------------

    def _publish(self, reading: JointReading) -> None:
        """Publish a reading. Runs in the bus thread."""
        scales = self._scales()
        position = array.array("d")
        velocity = array.array("d")
        effort = array.array("d")
        for state, scale in zip(reading.states, scales, strict=True):
            position.append(rad_from_ticks(state.position))
            velocity.append(rad_s_from_units(state.velocity))
            effort.append(state.effort * scale)
        for index in self._grippers:
            finger = finger_distance_m(position[index])
            position.extend((finger, -finger))
            velocity.extend((0.0, 0.0))
            effort.extend((0.0, 0.0))
        message = JointState(name=self._names, position=position, velocity=velocity, effort=effort)
        message.header.stamp = self.get_clock().now().to_msg()
        if rclpy.ok(context=self.context):
            self._joint_states.publish(message)

    def _scales(self) -> list[float]:
        """Return mA per raw unit of effort of each joint, known once the servos are."""
        if not self._effort_scale:
            models = self.driver.models()
            self._effort_scale = {
                name: MA_PER_UNIT if model.has_current_sensor else self._load_scale
                for name, model in models.items()
            }
        return [self._effort_scale[name] for name in self._configuration.joint_order]

    def _report(self, level: str, text: str) -> None:
        """Log an event of the driver. Runs in any thread."""
        # One call per level: rclpy ties the place of a call to its level.
        if level == "error":
            self.get_logger().error(text)
        elif level == "warning":
            self.get_logger().warning(text)
        else:
            self.get_logger().info(text)
        self._changed.set()

    def _diagnose(self) -> None:
        """Publish diagnostics at once when something happens, and now and then."""
        while not self._closing.is_set():
            self._changed.wait(_DIAGNOSTICS_PERIOD_S)
            self._changed.clear()
            self._publish_diagnostics()
            self._closing.wait(_DIAGNOSTICS_PAUSE_S)

    def _publish_diagnostics(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        prefix = self.get_namespace().rstrip("/")
        for entry in entries(self.driver.status(), self._ids):
            message.status.append(
                DiagnosticStatus(
                    level=bytes((entry.level,)),
                    name=f"{prefix}/{entry.name}".lstrip("/"),
                    message=entry.message,
                    hardware_id=self._configuration.port,
                    values=key_values(entry.values),
                )
            )
        if rclpy.ok(context=self.context):
            self._diagnostics.publish(message)

    # --- services ------------------------------------------------------------------------------

    def _create_services(self) -> None:
        services: tuple[tuple[type, str, Callable[[Any, Any], None]], ...] = (
            (TorqueEnable, "torque_enable", self._torque_enable),
            (Reboot, "reboot_motors", self._reboot),
            (RobotInfo, "get_robot_info", self._robot_info),
            (OperatingModes, "set_operating_modes", self._operating_modes),
            (MotorGains, "set_motor_pid_gains", self._gains),
            (RegisterValues, "set_motor_registers", self._set_registers),
            (RegisterValues, "get_motor_registers", self._get_registers),
        )
        for kind, name, callback in services:
            self.create_service(kind, name, self._answering(name, callback))
        self.create_service(Trigger, "~/rearm", self._rearm)

    def _answering(self, name: str, callback: Callable[[Any, Any], None]) -> Callable[..., Any]:
        """Answer with the default response on failure, as xs_sdk does, but say so in the log."""

        def serve(request: Any, response: Any) -> Any:
            try:
                callback(request, response)
            except (ServiceFailed, KeyError, TimeoutError) as error:
                text = str(error.args[0] if error.args else repr(error))
                self.get_logger().error(f"{name}: {text[:SHOWN_CHARACTERS]}")
                self.driver.count_refusal(f"service_{name}")
            return response

        return serve

    def _wait(self, future: Future[Any]) -> Any:
        deadline = time.monotonic() + _SERVICE_TIMEOUT_S
        while True:
            try:
                return future.result(timeout=0.1)
            except TimeoutError:
                if self._closing.is_set() or time.monotonic() > deadline:
                    raise

    def _torque_enable(self, request: TorqueEnable.Request, _: TorqueEnable.Response) -> None:
        self._wait(self.driver.torque_enable(request.cmd_type, request.name, request.enable))

    def _reboot(self, request: Reboot.Request, _: Reboot.Response) -> None:
        names = self._wait(
            self.driver.reboot(request.cmd_type, request.name, request.enable, request.smart_reboot)
        )
        self.get_logger().info(f"reboot_motors: restarted {names}")

    def _robot_info(self, request: RobotInfo.Request, response: RobotInfo.Response) -> None:
        mode = self.driver.mode_of(request.cmd_type, request.name)
        info = robot_info(self._configuration, self._limits, request.cmd_type, request.name, mode)
        response.mode = info.mode
        response.profile_type = info.profile_type
        response.joint_names = info.joint_names
        response.joint_ids = info.joint_ids
        response.joint_lower_limits = info.joint_lower_limits
        response.joint_upper_limits = info.joint_upper_limits
        response.joint_velocity_limits = info.joint_velocity_limits
        response.joint_sleep_positions = info.joint_sleep_positions
        response.joint_state_indices = info.joint_state_indices
        response.num_joints = len(info.joint_names)
        response.name = info.name

    def _operating_modes(self, request: OperatingModes.Request, _: Any) -> None:
        mode = Mode(
            request.mode,
            request.profile_type,
            request.profile_velocity,
            request.profile_acceleration,
        )
        unable = self._wait(self.driver.set_operating_modes(request.cmd_type, request.name, mode))
        if unable:
            self.get_logger().warning(
                f"set_operating_modes: {unable} have no mode '{request.mode}' and keep theirs"
            )

    def _gains(self, request: MotorGains.Request, _: MotorGains.Response) -> None:
        values = {register: getattr(request, field) for register, field in _GAIN_REGISTERS.items()}
        self._wait(self.driver.set_registers(request.cmd_type, request.name, values))

    def _set_registers(self, request: RegisterValues.Request, _: RegisterValues.Response) -> None:
        lacking = self._wait(
            self.driver.set_registers(request.cmd_type, request.name, {request.reg: request.value})
        )
        if lacking:
            self.get_logger().warning(f"set_motor_registers: there is no {', '.join(lacking)}")

    def _get_registers(
        self, request: RegisterValues.Request, response: RegisterValues.Response
    ) -> None:
        response.values = self._wait(
            self.driver.get_registers(request.cmd_type, request.name, request.reg)
        )

    def _rearm(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            self._wait(self.driver.rearm())
            response.success, response.message = True, "re-armed"
        except (ServiceFailed, TimeoutError) as error:
            response.success, response.message = False, str(error) or "no answer in time"
        return response


def main(args: list[str] | None = None) -> int:
    """Run the node until it is shut down. Returns the exit status."""
    return run_node("xs_driver", _start, arguments=args, users=("arm_controller", "arm_guard"))


def _start(ending: Ending) -> XsDriverNode:
    node = XsDriverNode(ending.event)
    settle_process()
    if node.realtime_priority:
        # Every thread waits: the executor for services, the middleware for packets.
        prefer_process(max(1, node.realtime_priority // 2))
    node.start()
    return node


if __name__ == "__main__":
    sys.exit(main())
