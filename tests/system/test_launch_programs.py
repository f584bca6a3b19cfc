"""Every program that a launch argument starts beside the nodes runs, and ends with the launch."""

import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from gnm_nav.map_building import MapBuilder
from gnm_nav.map_directory import save_map
from launched import wait_until
from policy_server.bundle import find_bundle
from policy_server.navigation_model import load_navigation_model

BUNDLE = Path(__file__).parents[2] / "models" / "gnm_sim"


@pytest.mark.parametrize(
    ("base", "programs"),
    [
        ("kobuki_emulated", ["kobuki_emulator", "kobuki_driver", "cmd_vel_guard"]),
        ("go2_emulated", ["go2_emulator", "go2_stop_keeper", "go2_driver", "cmd_vel_guard"]),
    ],
)
def test_an_emulated_base_comes_up_with_all_its_programs(start, base, programs):
    launch = start("launch", "base_drivers", "base.launch.py", f"base:={base}")
    for node in programs[-2:]:

        def is_active(name=node):
            state = start("lifecycle", "get", f"/{name}")
            state.wait(30.0)
            return "active [3]" in state.lines

        wait_until(is_active, 90.0, f"{node} did not become active:\n{launch.output}")
    for program in programs:
        launch.node_process(program)
    launch.process.send_signal(signal.SIGINT)
    launch.wait(30.0)
    launch.assert_nothing_left()


def test_navigation_runs_driver_camera_and_goal(start, tmp_path):
    wall = cv2.resize(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8), (640, 480))
    model = load_navigation_model(find_bundle(str(BUNDLE), []), threads=1)
    builder, video = MapBuilder(model), tmp_path / "drive.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), 4.0, (160, 120))
    for index in range(40):
        width = int(640 / (1.0 + 0.08 * index))
        x, y = (640 - width) // 2, (480 - width * 3 // 4) // 2
        image = cv2.resize(wall[y : y + width * 3 // 4, x : x + width], (160, 120))
        writer.write(np.ascontiguousarray(image[:, :, ::-1]))
        builder.add(image, 0.25 * index)
    writer.release()
    save_map(builder.finish(), tmp_path / "map")
    port = tmp_path / "kobuki"
    emulator = start(
        *("run", "base_drivers", "kobuki_emulator", "--link", str(port)),
        *("--control", str(tmp_path / "control.sock")),
    )
    wait_until(port.exists, 30.0, "no emulated port")
    launch = start(
        *("launch", "gnm_nav", "navigate.launch.py", f"map:={tmp_path / 'map'}", "goal:=last"),
        *("base:=kobuki", f"port:={port}", f"camera:={video}", "timeout_s:=3", "use_rviz:=true"),
    )
    assert launch.wait(120.0) in (0, 1)
    assert "done: " in launch.output or "FAILED: " in launch.output, launch.output
    launch.assert_nothing_left()
    emulator.stop()
