"""Node `kobuki_driver`: a Kobuki base behind the topics of every base."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from nav_msgs.msg import Odometry
from node_common.diagnostics import ERROR, OK, WARN
from node_common.managed_node import ManagedNode
from node_common.parameters import NodeParameter
from node_common.running import run_node
from policy_interfaces.msg import BaseContacts
from sensor_msgs.msg import BatteryState
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from base_drivers.command_guard import Command
from base_drivers.contact_rules import Contacts
from base_drivers.kobuki.battery import DANGEROUS_V, LOW_V, charge
from base_drivers.kobuki.driver import KobukiDriver, KobukiStatus, LinkState
from base_drivers.kobuki.feedback import BasicSensor
from base_drivers.kobuki.odometry import Pose
from base_drivers.odometry_messages import (
    contacts_message,
    odometry_message,
    planar_rotation,
    transform_message,
)
from base_drivers.velocity import Velocity, VelocityLimits, limit_speed
from base_drivers.velocity_messages import DRIVER_COMMAND_PARAMETERS, DriverCommands

PARAMETERS: Final = (
    NodeParameter("port", "/dev/kobuki", "serial port", structural=True),
    NodeParameter("stamped", False, "cmd_vel is TwistStamped instead of Twist", structural=True),
    NodeParameter("odom_frame", "odom", "frame of the odometry", structural=True),
    NodeParameter("base_frame", "base_link", "frame of the base", structural=True),
    NodeParameter("publish_tf", True, "publish odom_frame → base_frame", structural=True),
    *DRIVER_COMMAND_PARAMETERS,
    NodeParameter(
        "reconnect_initial_s", 0.2, "first wait for a lost port", 0.05, 60.0, structural=True
    ),
    NodeParameter(
        "reconnect_max_s", 5.0, "longest wait for a lost port", 0.05, 60.0, structural=True
    ),
    NodeParameter("max_linear_m_s", 0.7, "forward and backward speed", 0.01, 0.7),
    NodeParameter("max_angular_rad_s", 1.92, "yaw rate; beyond it the gyro errs", 0.01, 3.14),
)
_CONTACTS_PERIOD_S: Final = 0.1
_NO_LIMIT: Final = 1e9
# Position and heading drift without bound: these say only that short ways are good.
_VARIANCES: Final = (1e-3, 1e-3, 1e-4, 1e-4)
_LEVELS: Final = {
    LinkState.ABSENT: ERROR,
    LinkState.SILENT: ERROR,
    LinkState.GREETING: WARN,
    LinkState.INCOMPATIBLE: ERROR,
    LinkState.DRIVING: OK,
}
_CHARGING: Final = {
    "discharging": BatteryState.POWER_SUPPLY_STATUS_DISCHARGING,
    "docking_charged": BatteryState.POWER_SUPPLY_STATUS_FULL,
    "docking_charging": BatteryState.POWER_SUPPLY_STATUS_CHARGING,
    "adapter_charged": BatteryState.POWER_SUPPLY_STATUS_FULL,
    "adapter_charging": BatteryState.POWER_SUPPLY_STATUS_CHARGING,
}


class KobukiNode(ManagedNode):
    """See the package's README for topics and parameters. The port is held while active."""

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__("kobuki_driver", PARAMETERS, part="base", **node_arguments)
        self._driver: KobukiDriver | None = None
        self._values: Mapping[str, Any] = {}
        self._refused: dict[str, int] = {}
        self._contacts = Contacts()
        self._contacts_s = 0.0
        self._topics: dict[str, Any] = {}
        self._commands: DriverCommands | None = None
        self.create_service(Trigger, "~/reset_odometry", self._reset_odometry)

    # --- lifecycle --------------------------------------------------------------------------------

    def configure(self, values: dict[str, Any]) -> None:
        """Create the topics."""
        if not values["port"]:
            raise ValueError("port is empty; expected a serial port")
        self._values = values
        self._topics = {
            "odom": self.create_lifecycle_publisher(Odometry, "odom", 10),
            "contacts": self.create_lifecycle_publisher(BaseContacts, "contacts", 10),
            "battery": self.create_lifecycle_publisher(BatteryState, "battery_state", 10),
        }
        if values["publish_tf"]:
            self._topics["tf"] = self.create_lifecycle_publisher(TFMessage, "/tf", 100)
        for publisher in self._topics.values():
            self.hold(publisher)
        self._commands = self.hold(DriverCommands(self, self._on_command, self._refuse))

    def activate(self) -> None:
        """Start to look for the base; one that is not there yet is connected when it comes."""
        self._driver = KobukiDriver(
            self._values["port"],
            self._values["command_timeout_s"],
            self._values["reconnect_initial_s"],
            self._values["reconnect_max_s"],
            self._publish_motion,
            self._on_change,
        )
        self._driver.start()

    def rest(self, reason: str) -> None:
        """Bring the base to rest and let go of the port."""
        driver, self._driver = self._driver, None
        if driver is not None and not driver.stop():
            self.get_logger().error(f"{self._values['port']} does not let go")

    def find_problems(self) -> list[str]:
        """Why commands do not arrive."""
        return self._commands.problems() if self.active and self._commands is not None else []

    # --- commands ---------------------------------------------------------------------------------

    def _on_command(self, command: Command) -> None:
        driver = self._driver
        if driver is None:
            return
        if not command.is_finite:
            self._refuse("command_not_finite")
            driver.command(Velocity())
            return
        limits = VelocityLimits(
            self.get_parameter("max_linear_m_s").value,
            0.0,
            self.get_parameter("max_angular_rad_s").value,
            _NO_LIMIT,
            _NO_LIMIT,
        )
        if not driver.command(limit_speed(command.velocity, limits).velocity):
            self._refuse("command_not_connected")

    def _refuse(self, code: str) -> None:
        self._refused[code] = self._refused.get(code, 0) + 1

    def _reset_odometry(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        response.success = self._driver is not None
        if self._driver is not None:
            self._driver.reset_odometry()
        else:
            response.message = "the node is not active; activate it first"
        return response

    # --- measurements, from the driver's thread ---------------------------------------------------

    def _publish_motion(self, pose: Pose, basic: BasicSensor) -> None:
        if self._driver is None:
            return
        stamp = self.get_clock().now().to_msg()
        odometry = odometry_message(
            stamp,
            (self._values["odom_frame"], self._values["base_frame"]),
            (pose.x_m, pose.y_m, 0.0),
            planar_rotation(pose.yaw_rad),
            Velocity(pose.speed_m_s, 0.0, pose.rate_rad_s),
            _VARIANCES,
        )
        self._topics["odom"].publish(odometry)
        if "tf" in self._topics:
            self._topics["tf"].publish(transform_message(odometry))
        now_s = time.monotonic()
        if basic.contacts != self._contacts or now_s - self._contacts_s >= _CONTACTS_PERIOD_S:
            self._contacts, self._contacts_s = basic.contacts, now_s
            self._topics["contacts"].publish(
                contacts_message(stamp, self._values["base_frame"], basic.contacts)
            )

    def _on_change(self, status: KobukiStatus) -> None:
        if status.state is LinkState.DRIVING:
            version = ".".join(map(str, status.firmware or ()))
            self.get_logger().info(f"connected: firmware {version}, id {status.unique_id}")
        elif status.reason != "stopped":
            self.get_logger().warning(status.reason, throttle_duration_sec=2.0)
        self._publish_diagnostics(status)

    # --- slow topics ------------------------------------------------------------------------------

    def report(self) -> None:
        """Publish diagnostics and battery."""
        status = self._driver.status() if self._driver is not None else KobukiStatus()
        self._publish_diagnostics(status)
        basic = status.latest.basic
        if basic is None or status.state in (LinkState.ABSENT, LinkState.SILENT):
            return
        message = BatteryState(
            voltage=basic.battery_v,
            percentage=charge(basic.battery_v),
            power_supply_status=_CHARGING[basic.charger],
            power_supply_health=BatteryState.POWER_SUPPLY_HEALTH_UNKNOWN,
            power_supply_technology=BatteryState.POWER_SUPPLY_TECHNOLOGY_LION,
            present=True,
            location="base",
            design_capacity=float("nan"),
            capacity=float("nan"),
            charge=float("nan"),
            current=float("nan"),
            temperature=float("nan"),
        )
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = self._values["base_frame"]
        self._topics["battery"].publish(message)

    def _publish_diagnostics(self, status: KobukiStatus) -> None:
        active = self._driver is not None
        level, text = _judge(status) if active else (OK, "inactive")
        values = {
            "state": status.state.value,
            "port": self._values.get("port", ""),
            "connections": status.connections,
            "frames": status.frames,
            "skipped_bytes": status.skipped_bytes,
            "refused_frames": status.refused_frames,
            "rejected_readings": status.rejected_readings,
            "counter_restarts": status.counter_restarts,
            "watchdog_stops": status.watchdog_stops,
            "unique_id": status.unique_id,
            "firmware": ".".join(map(str, status.firmware or ())),
            "hardware": ".".join(map(str, status.hardware or ())),
            **self._refused,
        }
        latest = status.latest
        if latest.basic is not None:
            values |= {"battery_v": f"{latest.basic.battery_v:.1f}"}
            values |= {"charger": latest.basic.charger, "buttons": latest.basic.buttons}
        for name in ("cliff_adc", "motor_current_a", "docking_ir"):
            if (value := getattr(latest, name)) is not None:
                values[name] = " ".join(f"{entry:g}" for entry in value)
        self.publish_health(level, text, values, hardware_id=status.unique_id)


def _judge(status: KobukiStatus) -> tuple[bytes, str]:
    """Level and message of a connected or lost base."""
    if status.state is not LinkState.DRIVING:
        return _LEVELS[status.state], status.reason
    basic = status.latest.basic
    if basic is not None and (basic.overcurrent_left or basic.overcurrent_right):
        return ERROR, "motor current above 3 A: a wheel is blocked"
    if basic is not None and basic.battery_v <= DANGEROUS_V:
        return ERROR, f"battery {basic.battery_v:.1f} V: charge it now"
    if not status.kept:
        return WARN, "the process that stops the base after a crash has ended"
    if basic is not None and basic.battery_v <= LOW_V:
        return WARN, f"battery {basic.battery_v:.1f} V is low"
    return OK, "driving"


def main() -> int:
    """Run the node."""
    return run_node("kobuki_driver", lambda _: KobukiNode(), goes_first=True)


if __name__ == "__main__":
    sys.exit(main())
