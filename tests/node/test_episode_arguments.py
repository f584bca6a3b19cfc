"""Launch arguments of episodes: what cannot be run is refused before anything is started."""

import json
import shutil
import socket
from pathlib import Path

import pytest
import yaml

pytest.importorskip("launch")

from graph_launch.launch_arguments import ArgumentError, check_arguments
from widowx_bringup.episode_arguments import (
    check_combination,
    deciding_arguments,
    episode_arguments,
    image_topic,
)

MODELS = Path(__file__).parents[2] / "models"
LAUNCH_FILE = str(Path(__file__).parents[2] / "ros2_ws/src/widowx_bringup/launch/ptr.launch.py")
ARGUMENTS = episode_arguments(LAUNCH_FILE)


def check(*models, **given):
    values = check_arguments(ARGUMENTS, given)
    return values, check_combination(values, [MODELS, *models])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"task": "open_draw"}, "Did you mean 'open_drawer'"),
        ({"task": "open_drawer,open_drawer"}, "listed twice"),
        ({"model": "ptr_widowx_simm"}, 'did you mean "ptr_widowx_sim"'),
        ({"model": "gnm_sim"}, "wx250s"),
        ({"provider": "cupu"}, 'did you mean "cpu"'),
        ({"policy": "randon"}, 'did you mean "random"'),
        ({"report": "/proc/self/report.json"}, "cannot write the report"),
        ({"report": "/"}, "a directory"),
        ({"record": "/proc/self/new/bag"}, "cannot be made"),
        ({"record": "/tmp"}, "exists already"),
        ({"camera_topic": "/eye/compressed"}, "camera_topic:=/eye image_transport:=compressed"),
        ({"image_transport": "compressed"}, "the simulated one sends raw images"),
        ({"real_time": "true", "rtf": "0.5"}, "real_time:=true keeps real time"),
        ({"arm": "xs_sdk", "camera_rate_hz": "10"}, "camera_rate_hz is for a simulated camera"),
        ({"camera_rate_hz": "0.5"}, "expected 1 to 60"),
        ({"ask_operator": "true"}, "for a real arm"),
    ],
)
def test_what_cannot_be_run_is_refused(given, expected):
    with pytest.raises(ArgumentError) as error:
        check(**given)
    assert expected in str(error.value)


def test_all_problems_are_named_together():
    with pytest.raises(ArgumentError) as error:
        check(task="fly", provider="gpuu", record="/")
    assert len(str(error.value).splitlines()) == 3


def test_a_port_in_use_is_refused_for_the_page_only():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(ArgumentError, match="viewer_port"):
            check(viewer="web", viewer_port=port)
        check(viewer_port=port)
    check(viewer="web", viewer_port=port)


def test_the_shipped_policy_runs_by_its_own_kind_or_another():
    assert check()[1] == (MODELS / "ptr_widowx_sim", "ptr")
    assert check(policy="random", task="open_drawer, close_drawer")[1][1] == "random"


@pytest.mark.parametrize("arm", ["sim", "xs_sdk"])
def test_a_policy_without_tasks_runs(tmp_path, arm):
    bundle = tmp_path / "single"
    shutil.copytree(MODELS / "ptr_widowx_sim", bundle)
    (bundle / "ptr_widowx_sim.yaml").rename(bundle / "single.yaml")
    document = yaml.safe_load((bundle / "single.yaml").read_text())
    deployment = document["deployment"]
    del deployment["tasks"]
    deployment["observations"] = [
        item for item in deployment["observations"] if not item["kind"].startswith("task")
    ]
    (bundle / "single.yaml").write_text(yaml.safe_dump(document))
    for task in ("all", "open_drawer"):
        assert check(tmp_path, model="single", task=task, arm=arm)[1][0] == bundle
    if arm == "sim":
        with pytest.raises(ArgumentError, match="unknown task 'fold'"):
            check(tmp_path, model="single", task="fold")
    else:
        check(tmp_path, model="single", task="fold", arm=arm)


@pytest.mark.parametrize("topic", ["/camera/image_raw", "/wrist/image"])
def test_compressed_images_follow_the_camera_topic(topic):
    values, _ = check(arm="xs_sdk", camera_topic=topic, image_transport="compressed")
    assert image_topic(values) == f"{topic}/compressed"
    assert image_topic({**values, "image_transport": "raw"}) == topic


def test_descriptions_list_tasks_models_and_kinds():
    described = {argument.name: argument.description for argument in ARGUMENTS}
    assert "open_drawer" in described["task"] and "ptr_widowx_sim" in described["model"]
    assert "chunked" in described["policy"] and "openvino" in described["provider"]


def test_what_decides_a_result_is_told_apart_from_what_only_shows_it():
    values, _ = check(viewer="web", viewer_port="0" * 3 + "8651", report="r.json", rate_hz="4")
    deciding = json.loads(json.dumps(deciding_arguments(values)))
    assert deciding["rate_hz"] == 4.0 and deciding["arm"] == "sim"
    assert not {"viewer", "viewer_port", "report", "episodes", "max_repeats"} & deciding.keys()
