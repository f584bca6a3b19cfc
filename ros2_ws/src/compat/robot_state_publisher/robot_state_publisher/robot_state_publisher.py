"""Node `robot_state_publisher`: joint states and a URDF become `/tf` and `/tf_static`."""

import math
import sys
from collections.abc import Iterable, Sequence

from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from node_common.running import run_node
from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from robot_state_publisher.kinematic_tree import (
    DescriptionError,
    KinematicTree,
    Transform,
    parse_urdf,
)
from robot_state_publisher.publish_schedule import PublishSchedule

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class RobotStatePublisher(Node):
    """Publishes the frames of one robot."""

    def __init__(self) -> None:
        """Reads the parameters and publishes description and fixed frames.

        Raises:
            DescriptionError: `robot_description` is missing or is no proper URDF.
            rclpy.exceptions.ParameterException: another parameter is out of range.
        """
        super().__init__("robot_state_publisher")
        self.declare_parameter(
            "robot_description", "", ParameterDescriptor(description="the robot's URDF as XML text")
        )
        self.declare_parameter(
            "publish_frequency",
            20.0,
            ParameterDescriptor(
                description="highest rate of a joint on /tf [Hz]",
                floating_point_range=[FloatingPointRange(from_value=0.001, to_value=1000.0)],
            ),
        )
        self.declare_parameter(
            "frame_prefix", "", ParameterDescriptor(description="put before every frame's name")
        )
        self.declare_parameter(
            "ignore_timestamp",
            False,
            ParameterDescriptor(description="publish joint states whatever their stamps"),
        )
        self._tf = self.create_publisher(TFMessage, "/tf", QoSProfile(depth=100))
        self._tf_static = self.create_publisher(TFMessage, "/tf_static", LATCHED)
        self._description = self.create_publisher(String, "robot_description", LATCHED)
        text = self._text("robot_description")
        if not text:
            raise DescriptionError("robot_description must not be empty; give the robot's URDF")
        self._tree: KinematicTree = parse_urdf(text)
        self._schedule = PublishSchedule(self._number("publish_frequency"), self._ignores_stamps())
        self._publish_description()
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)
        self.create_subscription(
            JointState, "joint_states", self._on_joint_states, qos_profile_sensor_data
        )

    def _text(self, name: str) -> str:
        return str(self.get_parameter(name).value)

    def _number(self, name: str) -> float:
        return float(self.get_parameter(name).value)

    def _ignores_stamps(self) -> bool:
        return bool(self.get_parameter("ignore_timestamp").value)

    def _check_parameters(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name == "robot_description":
                try:
                    parse_urdf(str(parameter.value))
                except DescriptionError as error:
                    return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply_parameters(self, parameters: Sequence[Parameter]) -> None:
        self._schedule.frequency_hz = self._number("publish_frequency")
        self._schedule.ignore_timestamp = self._ignores_stamps()
        if {"robot_description", "frame_prefix"} & {parameter.name for parameter in parameters}:
            self._tree = parse_urdf(self._text("robot_description"))
            self._publish_description()

    def _publish_description(self) -> None:
        self._description.publish(String(data=self._text("robot_description")))
        stamp = self.get_clock().now().to_msg()
        self._tf_static.publish(self._message(self._tree.fixed_transforms(), stamp))

    def _on_joint_states(self, message: JointState) -> None:
        if len(message.name) != len(message.position):
            # A source may send velocities or efforts alone.
            self.get_logger().warning(
                f"ignored a joint_states message with {len(message.name)} names and "
                f"{len(message.position)} positions",
                throttle_duration_sec=5.0,
            )
            return
        now = self.get_clock().now()
        if self._schedule.clock_went_back(now.nanoseconds):
            self.get_logger().warning("time went back; publishing all joints anew")
        stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        if stamp_ns == 0:
            self.get_logger().warning(
                "joint_states have no stamp; using the time of arrival", once=True
            )
            message.header.stamp, stamp_ns = now.to_msg(), now.nanoseconds
        due = self._schedule.is_due(message.name, stamp_ns, now.nanoseconds)
        if self._schedule.notice:
            self.get_logger().warning(self._schedule.notice)
            self._schedule.notice = ""
        if not due:
            return
        positions = dict(zip(message.name, message.position, strict=True))
        broken = [name for name, position in positions.items() if not math.isfinite(position)]
        if broken:
            self.get_logger().warning(
                f"ignored positions that are not finite: {', '.join(broken)}",
                throttle_duration_sec=5.0,
            )
            for name in broken:
                del positions[name]
        transforms = self._tree.moving_transforms(positions)
        if transforms:
            self._tf.publish(self._message(transforms, message.header.stamp))

    def _message(self, transforms: Iterable[Transform], stamp: Time) -> TFMessage:
        prefix = self._text("frame_prefix")
        message = TFMessage()
        for transform in transforms:
            stamped = TransformStamped(child_frame_id=prefix + transform.child)
            stamped.header.stamp = stamp
            stamped.header.frame_id = prefix + transform.parent
            translation, rotation = stamped.transform.translation, stamped.transform.rotation
            translation.x, translation.y, translation.z = map(float, transform.translation)
            rotation.x, rotation.y, rotation.z, rotation.w = map(float, transform.rotation)
            message.transforms.append(stamped)
        return message


def main() -> int:
    """Run the node until it is interrupted; return the exit status."""
    return run_node("robot_state_publisher", lambda _: RobotStatePublisher())


if __name__ == "__main__":
    sys.exit(main())
