"""Bad input is refused with a clear message and a non-zero exit status, and nothing moves."""

import shutil
from pathlib import Path

import pytest

PTR = ("launch", "widowx_bringup", "ptr.launch.py")
BUNDLE = Path(__file__).parents[2] / "models" / "ptr_widowx_sim"
REFUSED_S = 60.0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["episode:=1"], "did you mean 'episodes'"),
        (["rate_hz:=1000"], "rate_hz is 1000; expected a number in 0.1 .. 50"),
        (["episodes:=none", "rtf:=0"], "episodes is 'none'; expected a whole number"),
        (["model:=ptr_widowx_simm"], "ptr_widowx_sim"),
        (["model:=/no/such/bundle"], "no such bundle"),
        (["viewer:=windows"], "windows"),
        (["arm:=xs_sdk", "rtf:=2.0"], "rtf is for arm:=sim"),
        (["arm:=sim", "port:=/dev/ttyDXL"], "port is for arm:=serial"),
        (["arm:=emulated", "camera:=/dev/video0"], "camera is for a real arm"),
        (["record:=/"], "exists already"),
        (["arm:=serial", "port:=/dev/no_port"], "port: the serial port /dev/no_port does not"),
        (["arm:=serial", "port:=/dev/null"], "/dev/null is no serial port"),
        (["arm:=xs_sdk", "camera:=/dev/video99"], "the camera /dev/video99 does not exist"),
        (["task:=put_red_cube_in_pott"], "Did you mean 'put_red_cube_in_pot'"),
    ],
)
def test_wrong_arguments_start_nothing(start, arguments, expected):
    launch = start(*PTR, *arguments)
    assert launch.wait(20.0) != 0
    assert expected in launch.output
    assert "process started" not in launch.output


def corrupt(bundle):
    file = bundle / "policy.onnx"
    file.write_bytes(file.read_bytes()[:-100])
    return "policy.onnx"


def change_a_weight(bundle):
    file = bundle / "policy.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return "policy.onnx"


def remove_a_file(bundle):
    (bundle / "encoder.onnx").unlink()
    return "encoder.onnx"


def leave_the_directory(bundle):
    document = bundle / f"{bundle.name}.yaml"
    document.write_text(document.read_text().replace("policy.onnx", "../policy.onnx"))
    return "../policy.onnx"


@pytest.mark.parametrize("damage", [corrupt, change_a_weight, remove_a_file, leave_the_directory])
def test_a_damaged_bundle_is_refused(start, watcher, tmp_path, damage):
    bundle = tmp_path / BUNDLE.name
    shutil.copytree(BUNDLE, bundle)
    expected = damage(bundle)
    launch = start(*PTR, f"model:={bundle}")
    assert launch.wait(REFUSED_S) != 0
    assert expected in launch.output
    assert "refused to configure" in launch.output or "process started" not in launch.output
    assert watcher.last_motion_s is None
    launch.assert_nothing_left()


def test_without_a_camera_the_arm_does_not_move(start, watcher):
    launch = start(*PTR, "camera_topic:=/no/camera")
    assert launch.wait(REFUSED_S) != 0
    assert "no image on /no/camera" in launch.output
    assert watcher.last_motion_s is None
    launch.assert_nothing_left()
