"""Run one camera: `ros2 launch camera_drivers camera.launch.py source:=/dev/video0`."""

from pathlib import Path

from graph_launch.supervision import bring_up, unless_running
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import LifecycleNode

# Driver parameters that are arguments too, with their types; empty: the file's or the driver's own.
PARAMETERS = {
    "source": (str, "device, stream URL, realsense://[serial], video file or image folder"),
    "frame_id": (str, "frame of the images"),
    "camera_info_url": (str, "calibration YAML as file:///… or package://…"),
    "image_width": (int, "width asked for [px]"),
    "image_height": (int, "height asked for [px]"),
    "frame_rate_hz": (float, "rate asked for [Hz]"),
    "pixel_format": (str, "V4L2 format asked for, e.g. MJPG"),
}


def start_camera(context: LaunchContext) -> list:
    given = context.launch_configurations
    name = given["camera_name"].strip("/")
    parameters: list = []
    if given["params_file"]:
        path = Path(given["params_file"]).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"params_file is '{path}', which is not a file")
        parameters.append(str(path))
    values: dict = {"camera_name": name}
    for parameter, (kind, _) in PARAMETERS.items():
        if given[parameter]:
            try:
                values[parameter] = kind(given[parameter])
            except ValueError:
                raise ValueError(
                    f"{parameter} is '{given[parameter]}'; expected {kind.__name__}"
                ) from None
    node = LifecycleNode(
        package="camera_drivers",
        executable="camera_driver",
        name="camera_driver",
        namespace=f"/{name}",
        parameters=[*parameters, values],
        output="screen",
    )

    return unless_running(context, bring_up(node, "camera_driver", when_active=[]))


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "camera_name", default_value="camera", description="namespace and name"
            ),
            DeclareLaunchArgument(
                "params_file", default_value="", description="YAML file of parameters"
            ),
            *(
                DeclareLaunchArgument(name, default_value="", description=description)
                for name, (_, description) in PARAMETERS.items()
            ),
            OpaqueFunction(function=start_camera),
        ]
    )
