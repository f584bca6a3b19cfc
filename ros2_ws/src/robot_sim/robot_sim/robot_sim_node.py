"""Node `robot_sim`: the kitchen behind the topics and services of a WidowX with a camera.

The arm's side is the interface of Interbotix's xs_sdk, in this node's namespace, or the servos'
serial bus for a driver beside it. See the README.
"""

from __future__ import annotations

import array
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from builtin_interfaces.msg import Time as TimeMessage
from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand, JointTrajectoryCommand
from interbotix_xs_msgs.srv import (
    MotorGains,
    OperatingModes,
    Reboot,
    RegisterValues,
    RobotInfo,
    TorqueEnable,
)
from node_common.cpu_load import CpuLoad
from node_common.declared_parameters import declare_parameters
from node_common.diagnostics import OK, WARN, Diagnostics
from node_common.parameters import NodeParameter
from node_common.running import Ending, StartError, run_node
from node_common.topic_watch import publishers
from numpy.typing import NDArray
from policy_interfaces.msg import TaskStatus
from policy_interfaces.srv import ResetScene
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState

from robot_sim.scene_model import CAMERA_FOVY_DEG, IMAGE_HEIGHT, IMAGE_WIDTH
from robot_sim.servo_bus import ServoBusOptions
from robot_sim.simulation_loop import CYCLE_S, CycleState, SimulationLoop
from robot_sim.tasks import TASKS, find_task
from robot_sim.xs_arm import XsArmError

CAMERA_FRAME = "camera"
_STATUS_CYCLES = round(0.05 / CYCLE_S)
_RIVAL_WAIT_S = 1.0
RIVAL_WATCH_S = 5.0
_RIVAL_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
_MAX_SEED = 2**31 - 1
_PARAMETERS = (
    NodeParameter(
        "task",
        "put_red_cube_in_pot",
        "task of the first scene",
        choices=tuple(TASKS),
    ),
    NodeParameter("seed", 0, "seed of the first scene", 0, _MAX_SEED),
    NodeParameter(
        "rtf",
        1.0,
        "simulated seconds per second at most; not 1: with simulated_clock",
        0.1,
        20.0,
    ),
    NodeParameter(
        "simulated_clock",
        False,
        "publish /clock and stamp with it; simulated time then waits for the camera",
    ),
    NodeParameter("camera_rate_hz", 30.0, "images per simulated second", 1.0, 60.0),
    NodeParameter(
        "viewer",
        "none",
        "none, or window for MuJoCo's viewer",
        choices=("none", "window"),
    ),
    NodeParameter(
        "servo_bus",
        "",
        "path of a link to a serial port on which the arm's servos answer, instead of the arm's "
        "topics and services; empty: none",
    ),
    NodeParameter(
        "servo_bus_control",
        "",
        "path of a Unix socket that takes the commands of servo_bus_emulator; empty: none",
    ),
)


class RobotSim(Node):
    """Simulated arm, camera and task judge."""

    def __init__(self, ending: Ending, **kwargs: Any) -> None:
        """Check the parameters and the graph, then start the simulation.

        Args:
            ending: told when the simulation died, with the reason.
            kwargs: passed on to `rclpy.node.Node`.

        Raises:
            StartError: a parameter is wrong, another driver serves this namespace, or the scene
                cannot be drawn.
        """
        super().__init__("robot_sim", **kwargs)
        parameters = declare_parameters(self, _PARAMETERS, read_only=True)
        self._simulated_clock = parameters["simulated_clock"] or parameters["rtf"] != 1.0
        servo_bus = _servo_bus(parameters)
        if servo_bus is None:
            self._refuse_rivals()
        self._cycles = 0
        self._ending = ending
        self._own_stamps: deque[tuple[int, int]] = deque(maxlen=1000)
        reliable = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._joint_states = (
            self.create_publisher(JointState, "joint_states", reliable)
            if servo_bus is None
            else None
        )
        self._images = self.create_publisher(Image, "/camera/image_raw", newest)
        self._camera_infos = self.create_publisher(CameraInfo, "/camera/camera_info", newest)
        self._task_status = self.create_publisher(TaskStatus, "/robot_sim/task_status", reliable)
        self._clock_messages = (
            self.create_publisher(Clock, "/clock", reliable) if self._simulated_clock else None
        )
        self._diagnostics = Diagnostics(
            self, "simulation", name="robot_sim", hardware_id="simulation"
        )
        self._load = CpuLoad()
        self._real_time_factor = parameters["rtf"]
        self._last_state = CycleState(0.0, time.time_ns(), None)
        self._watched = (time.monotonic(), 0.0, 0.0)
        self._camera_info = _camera_info()
        self.loop = SimulationLoop(
            find_task(parameters["task"]),
            parameters["seed"],
            parameters["rtf"],
            parameters["camera_rate_hz"],
            self._publish_cycle,
            self._publish_image,
            ending.fail,
            servo_bus,
            wait_for_camera=self._simulated_clock,
        )
        self._viewer_wanted = parameters["viewer"] == "window"
        if self._viewer_wanted and not (
            os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        ):
            raise StartError(
                "parameter viewer: found 'window', but there is no display (DISPLAY is not set); "
                "use viewer:=none or watch /camera/image_raw"
            )
        if servo_bus is None:
            with self.loop.arm() as arm:
                self._joint_names = list(arm.joint_names)
            self._watch_for_rivals()
        self.loop.start()
        if ending.failure:
            raise StartError(ending.failure)
        self.create_timer(1.0, self._publish_diagnostics)
        # Last: who finds a service takes it for ready to answer.
        if servo_bus is None:
            self._serve_arm()
        self.create_service(ResetScene, "/robot_sim/reset_scene", self._serve_reset)
        where = self.loop.servo_port or f"namespace {self.get_namespace()}"
        self.get_logger().info(
            f"task '{parameters['task']}', seed {parameters['seed']}, "
            f"arm on {where}, {parameters['rtf']:g} x real time"
        )

    def destroy_node(self) -> None:
        """Stop the simulation before the publishers go."""
        if hasattr(self, "loop"):
            self.loop.stop()
        super().destroy_node()

    def viewer_loop(self) -> Callable[[], None] | None:
        """What shows MuJoCo's viewer in the main thread, None when it is not wanted."""
        return self._show if self._viewer_wanted else None

    def _show(self) -> None:
        """Return when the window is closed or the node ends."""
        from mujoco import viewer

        data = mujoco.MjData(self.loop.model)
        self.loop.copy_state(data)
        with viewer.launch_passive(self.loop.model, data) as window:
            while window.is_running() and not self._ending.event.wait(1 / 30):
                self.loop.copy_state(data)
                window.sync()

    # Start

    def _refuse_rivals(self) -> None:
        """Give discovery a moment, and refuse to drive an arm that is driven already."""
        heard = threading.Event()
        listener = self.create_subscription(
            JointState, "joint_states", lambda _: heard.set(), _RIVAL_QOS
        )
        executor = SingleThreadedExecutor()
        executor.add_node(self)
        deadline = time.monotonic() + _RIVAL_WAIT_S
        while time.monotonic() < deadline and not heard.is_set():
            executor.spin_once(timeout_sec=0.05)
        executor.remove_node(self)
        executor.shutdown()
        self.destroy_subscription(listener)
        if heard.is_set():
            raise StartError(self._rival_text())

    def _rival_text(self) -> str:
        # A publisher may be discovered before the name of its node.
        named = {n for n in publishers(self, "joint_states").values() if "UNKNOWN" not in n}
        others = named or {"another node"}
        return (
            f"{self.resolve_topic_name('joint_states')} is already published by "
            f"{', '.join(sorted(others))}: another driver or simulator serves this namespace; "
            "stop it or choose another namespace"
        )

    def _watch_for_rivals(self) -> None:
        """Keep listening for a while: on a busy machine discovery outlasts the first look."""
        since = time.monotonic()
        own = self._own_stamps

        def check(message: JointState) -> None:
            stamp = (message.header.stamp.sec, message.header.stamp.nanosec)
            if stamp not in own:
                self._ending.fail(self._rival_text())

        listener = self.create_subscription(JointState, "joint_states", check, _RIVAL_QOS)

        def end() -> None:
            if time.monotonic() - since > RIVAL_WATCH_S:
                timer.cancel()
                self.destroy_subscription(listener)

        timer = self.create_timer(1.0, end)

    def _serve_arm(self) -> None:
        depth = 10
        for kind, topic, callback in (
            (JointGroupCommand, "commands/joint_group", self._on_group),
            (JointSingleCommand, "commands/joint_single", self._on_single),
            (JointTrajectoryCommand, "commands/joint_trajectory", self._on_trajectory),
        ):
            self.create_subscription(kind, topic, callback, depth)
        for kind, name, service in (
            (TorqueEnable, "torque_enable", self._serve_torque),
            (Reboot, "reboot_motors", self._serve_reboot),
            (RobotInfo, "get_robot_info", self._serve_info),
            (OperatingModes, "set_operating_modes", self._serve_modes),
            (MotorGains, "set_motor_pid_gains", self._serve_gains),
            (RegisterValues, "set_motor_registers", self._serve_set_registers),
            (RegisterValues, "get_motor_registers", self._serve_get_registers),
        ):
            self.create_service(kind, name, service)

    # Commands of the arm. A bad one is logged and ignored, as the wire has no way to refuse it.

    def _try(self, what: str, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except XsArmError as error:
            self.get_logger().error(f"{what} refused: {error}", throttle_duration_sec=1.0)
            return None

    def _on_group(self, message: JointGroupCommand) -> None:
        with self.loop.arm() as arm:
            self._try("joint_group", lambda: arm.command_group(message.name, list(message.cmd)))

    def _on_single(self, message: JointSingleCommand) -> None:
        with self.loop.arm() as arm:
            self._try("joint_single", lambda: arm.command_single(message.name, message.cmd))

    def _on_trajectory(self, message: JointTrajectoryCommand) -> None:
        points = message.traj.points
        times = [p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec for p in points]

        def start() -> None:
            key = arm.values_key(message.cmd_type, message.name)
            values = [list(getattr(p, key)) for p in points]
            arm.start_trajectory(message.cmd_type, message.name, times, values)

        with self.loop.arm() as arm:
            self._try("joint_trajectory", start)

    def _serve_torque(
        self, q: TorqueEnable.Request, answer: TorqueEnable.Response
    ) -> TorqueEnable.Response:
        with self.loop.arm() as arm:
            self._try("torque_enable", lambda: arm.set_torque(q.cmd_type, q.name, q.enable))
        return answer

    def _serve_reboot(self, q: Reboot.Request, answer: Reboot.Response) -> Reboot.Response:
        with self.loop.arm() as arm:
            self._try(
                "reboot_motors",
                lambda: arm.reboot(q.cmd_type, q.name, q.enable, q.smart_reboot),
            )
        return answer

    def _serve_info(self, q: RobotInfo.Request, answer: RobotInfo.Response) -> RobotInfo.Response:
        with self.loop.arm() as arm:
            info = self._try("get_robot_info", lambda: arm.robot_info(q.cmd_type, q.name))
        if info is not None:
            answer.mode, answer.profile_type = info.mode, info.profile_type
            answer.joint_names, answer.name = info.joint_names, info.name
            answer.joint_ids = info.joint_ids
            answer.joint_lower_limits = info.joint_lower_limits
            answer.joint_upper_limits = info.joint_upper_limits
            answer.joint_velocity_limits = info.joint_velocity_limits
            answer.joint_sleep_positions = info.joint_sleep_positions
            answer.joint_state_indices = info.joint_state_indices
            answer.num_joints = len(info.joint_names)
        return answer

    def _serve_modes(
        self, q: OperatingModes.Request, answer: OperatingModes.Response
    ) -> OperatingModes.Response:
        with self.loop.arm() as arm:
            self._try(
                "set_operating_modes",
                lambda: arm.set_operating_modes(
                    q.cmd_type,
                    q.name,
                    q.mode,
                    q.profile_type,
                    q.profile_velocity,
                    q.profile_acceleration,
                ),
            )
        return answer

    def _serve_gains(
        self, q: MotorGains.Request, answer: MotorGains.Response
    ) -> MotorGains.Response:
        gains = (q.kp_pos, q.ki_pos, q.kd_pos, q.k1, q.k2, q.kp_vel, q.ki_vel)
        with self.loop.arm() as arm:
            self._try("set_motor_pid_gains", lambda: arm.set_pid_gains(q.cmd_type, q.name, gains))
        return answer

    def _serve_set_registers(
        self, q: RegisterValues.Request, answer: RegisterValues.Response
    ) -> RegisterValues.Response:
        with self.loop.arm() as arm:
            self._try(
                "set_motor_registers",
                lambda: arm.write_registers(q.cmd_type, q.name, q.reg, q.value),
            )
        return answer

    def _serve_get_registers(
        self, q: RegisterValues.Request, answer: RegisterValues.Response
    ) -> RegisterValues.Response:
        with self.loop.arm() as arm:
            values = self._try(
                "get_motor_registers", lambda: arm.read_registers(q.cmd_type, q.name, q.reg)
            )
        answer.values = values or []
        return answer

    def _serve_reset(
        self, q: ResetScene.Request, answer: ResetScene.Response
    ) -> ResetScene.Response:
        answer.known_tasks = list(TASKS)
        try:
            task = find_task(q.task)
            self.loop.reset_scene(task, q.seed)
        except (KeyError, ValueError) as error:
            answer.success, answer.message = False, str(error.args[0])
            if q.task:  # without a name the caller only asks for the known ones
                self.get_logger().error(f"reset_scene refused: {answer.message}")
            return answer
        answer.success, answer.instruction = True, task.instruction
        return answer

    # Publishing, in the loop's threads

    def _stamp(self, time_s: float, wall_ns: int) -> TimeMessage:
        """Simulated time with a simulated clock, else the system time of that moment."""
        ns = round(time_s * 1e9) if self._simulated_clock else wall_ns
        return TimeMessage(sec=ns // 10**9, nanosec=ns % 10**9)

    def _publish_cycle(self, state: CycleState) -> None:
        self._last_state = state
        stamp = self._stamp(state.time_s, state.wall_ns)
        if self._clock_messages is not None:
            self._clock_messages.publish(Clock(clock=stamp))
        if self._joint_states is not None and state.joint_state is not None:
            message = JointState()
            message.header.stamp = stamp
            message.name = self._joint_names
            message.position, message.velocity, message.effort = state.joint_state
            self._own_stamps.append((stamp.sec, stamp.nanosec))
            self._joint_states.publish(message)
        self._cycles += 1
        if self._cycles % _STATUS_CYCLES == 0:
            self._publish_task_status(stamp)

    def _publish_task_status(self, stamp: TimeMessage) -> None:
        judged = self.loop.task_state()
        message = TaskStatus()
        message.header.stamp = stamp
        message.task, message.instruction = judged.task.name, judged.task.instruction
        message.seed, message.episode = judged.seed, judged.episode
        message.success, message.success_s = judged.success, judged.success_s
        self._task_status.publish(message)

    def _publish_diagnostics(self) -> None:
        """Say how well the simulation keeps its pace: at 1 Hz."""
        self._load.sample()
        state, late_s = self._last_state, self.loop.late_s
        before_s, time_before_s, late_before_s = self._watched
        elapsed_s = time.monotonic() - before_s
        self._watched = (time.monotonic(), state.time_s, late_s)
        factor = (state.time_s - time_before_s) / elapsed_s
        level, message = OK, f"{factor:.2f} x real time"
        if late_s > late_before_s:
            level = WARN
            message = (
                f"the simulation runs at {factor:.2f} x real time, expected "
                f"{self._real_time_factor:g}: joint states come at {factor / CYCLE_S:.0f} Hz, "
                f"expected {self._real_time_factor / CYCLE_S:.0f}{self._load.note}"
            )
            every_s = 60.0 if self._simulated_clock else 10.0
            self.get_logger().warning(message, throttle_duration_sec=every_s)
        values = {
            "real_time_factor": f"{factor:.3f}",
            "late_s": f"{late_s:.3f}",
            "images_skipped": self.loop.frames_skipped,
            "cpu_percent": f"{self._load.cpu_percent:.0f}",
        }
        stamp = self._stamp(state.time_s, time.time_ns())
        self._diagnostics.publish(level, message, values, stamp=stamp)

    def _publish_image(self, time_s: float, wall_ns: int, pixels: NDArray[np.uint8]) -> None:
        stamp = self._stamp(time_s, wall_ns)
        message = Image()
        message.header.stamp = stamp
        message.header.frame_id = CAMERA_FRAME
        message.height, message.width = pixels.shape[:2]
        message.encoding = "rgb8"
        message.step = 3 * message.width
        # rclpy copies anything but an array.array element by element.
        message.data = array.array("B", pixels.tobytes())
        self._images.publish(message)
        self._camera_info.header = message.header
        self._camera_infos.publish(self._camera_info)


def _servo_bus(parameters: Mapping[str, Any]) -> ServoBusOptions | None:
    """Where the servo bus is wanted, if it is."""
    link, control = (str(parameters[name]) for name in ("servo_bus", "servo_bus_control"))
    if not link:
        if control:
            raise StartError(
                f"parameter servo_bus_control: found '{control}', but there is no bus to control; "
                "set servo_bus too"
            )
        return None
    if parameters["rtf"] != 1.0 or parameters["simulated_clock"]:
        raise StartError(
            f"parameter rtf: found {parameters['rtf']:g}, simulated_clock "
            f"{parameters['simulated_clock']}; expected 1.0 and False with servo_bus: servos and "
            "their driver keep real time"
        )
    path = Path(link)
    if path.exists() and not path.is_symlink():
        raise StartError(f"parameter servo_bus: found '{link}', which exists and is not a link")
    if not path.parent.is_dir():
        raise StartError(f"parameter servo_bus: found '{link}'; there is no folder {path.parent}")
    return ServoBusOptions(path, Path(control) if control else None)


def _camera_info() -> CameraInfo:
    """Pinhole camera without distortion."""
    focal = 0.5 * IMAGE_HEIGHT / math.tan(math.radians(CAMERA_FOVY_DEG) / 2)
    cx, cy = (IMAGE_WIDTH - 1) / 2, (IMAGE_HEIGHT - 1) / 2
    info = CameraInfo(width=IMAGE_WIDTH, height=IMAGE_HEIGHT, distortion_model="plumb_bob")
    info.d = [0.0] * 5
    info.k = [focal, 0.0, cx, 0.0, focal, cy, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [focal, 0.0, cx, 0.0, 0.0, focal, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is interrupted or the simulation died; return the exit status."""
    return run_node(
        "robot_sim",
        RobotSim,
        arguments=arguments,
        users=("arm_controller", "arm_guard", "xs_driver"),
        main_loop=RobotSim.viewer_loop,
    )


if __name__ == "__main__":
    sys.exit(main())
