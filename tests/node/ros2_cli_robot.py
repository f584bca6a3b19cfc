"""The node that test_ros2_cli.py looks at, and test_launch_ros.py launches."""

import contextlib
import time

import rclpy
from policy_interfaces.action import MoveToNamedPose
from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

RATE_HZ = 20.0


class Robot(LifecycleNode):
    def __init__(self):
        super().__init__("robot", enable_communication_interface=True)
        limits = FloatingPointRange(from_value=0.0, to_value=2.0)
        speed = ParameterDescriptor(description="Speed.", floating_point_range=[limits])
        self.declare_parameter("speed_m_s", 0.5, speed)
        self.declare_parameter("arm.joints", ["waist", "wrist"])
        self.declare_parameter("arm.limits", [0.5, 1.5])
        self.declare_parameter("name", "none")
        self.declare_parameter("from_file", 0)
        self.count = 0
        self.publisher = self.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
        self.create_timer(1.0 / RATE_HZ, self.publish)
        self.create_service(SetBool, "enable", self.enable)
        self.server = ActionServer(
            self,
            MoveToNamedPose,
            "move",
            self.move,
            callback_group=ReentrantCallbackGroup(),
            cancel_callback=lambda goal: CancelResponse.ACCEPT,
        )

    def publish(self):
        self.count += 1
        message = JointState(name=["waist", "wrist"], position=[float(self.count), 0.25])
        message.header.frame_id = "base"
        message.header.stamp = self.get_clock().now().to_msg()
        self.publisher.publish(message)

    def enable(self, request, response):
        response.success = request.data
        response.message = "enabled" if request.data else "refused"
        return response

    def move(self, goal):
        end = time.monotonic() + goal.request.duration_s
        while time.monotonic() < end:
            if goal.is_cancel_requested:
                goal.canceled()
                print("goal cancelled", flush=True)
                return MoveToNamedPose.Result(message="cancelled")
            goal.publish_feedback(MoveToNamedPose.Feedback(progress=0.5))
            time.sleep(0.05)
        goal.succeed()
        return MoveToNamedPose.Result(message=f"at {goal.request.pose}")

    def on_configure(self, state):
        names = ("speed_m_s", "arm.joints", "arm.limits", "name", "from_file", "use_sim_time")
        for name in names:
            print(f"{name} = {self.get_parameter(name).value!r}", flush=True)
        print(f"topic {self.resolve_topic_name('joint_states')}", flush=True)
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state):
        return TransitionCallbackReturn.FAILURE


def main():
    rclpy.init()
    executor = MultiThreadedExecutor(3)
    executor.add_node(Robot())
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        executor.spin()


if __name__ == "__main__":
    main()
