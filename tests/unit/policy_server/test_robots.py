"""Robots as YAML: what a file may say, and that a policy fits the robot it is connected to."""

import bundle_builder
import pytest
import yaml
from node_common.strict_yaml import BundleError
from policy_server.bundle import load_bundle
from policy_server.robots import check_robot, load_robot, robot_directory, robot_names

D = "action_spaces"
SPACE = (D, "end_effector_delta")


def write_robot(tmp_path, *changes, name="lab_arm"):
    """A user's own robot: the WidowX with changes; each is a path of keys and a value, or None."""
    file = tmp_path / f"{name}.yaml"
    document = yaml.safe_load((robot_directory() / "wx250s.yaml").read_text())
    document["name"] = name
    for path, value in changes:
        inner = document
        for key in path[:-1]:
            inner = inner[key]
        if value is None:
            del inner[path[-1]]
        else:
            inner[path[-1]] = value
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    return str(file)


def test_a_user_s_own_robot_is_a_file(tmp_path, ptr_file):
    robot = load_robot(write_robot(tmp_path, ((*SPACE, "entries", "dx", "high"), 0.04)))
    assert robot.name == "lab_arm" and "wx250s" in robot_names()
    deployment = load_bundle(ptr_file).deployment
    with pytest.raises(BundleError, match="robot: found wx250s, expected lab_arm"):
        check_robot(ptr_file, deployment, robot)
    document = yaml.safe_load(ptr_file.read_text())
    document["deployment"]["robot"] = "lab_arm"
    file = bundle_builder.write_yaml(ptr_file.parent, document)
    with pytest.raises(BundleError, match=r"bounds of dx: found \[-0.05, 0.05\].*-0.05, 0.04"):
        check_robot(file, load_bundle(file).deployment, robot)
    document["deployment"]["action"]["high"][0] = 0.04
    file = bundle_builder.write_yaml(ptr_file.parent, document)
    space = check_robot(file, load_bundle(file).deployment, robot)
    assert space.executes(0.2) and not space.executes(float("nan"))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ((*SPACE, "entries", "dx", "low"), float("nan"), "entries.dx.low"),
        ((*SPACE, "entries", "dx", "low"), 0.06, "entries.dx.high: found 0.05, expected more than"),
        ((*SPACE, "entries", "dx", "high"), None, "entries.dx.high: found nothing"),
        ((*SPACE, "entries", "dx", "unit"), "cm", "entries.dx.unit"),
        ((*SPACE, "entries", "dx", "max"), 1.0, "unknown key"),
        ((*SPACE, "entries"), {}, "entries"),
        ((*SPACE, "step_range_s"), [0.5, 0.02], "step_range_s"),
        ((*SPACE, "step_range_s"), [0.0, 2.0], "step_range_s"),
        ((*SPACE, "step_range_s"), [0.02], "step_range_s"),
        ((*SPACE, "frame"), None, "frame: found nothing"),
        ((D,), {}, "action_spaces"),
        (("states", "joint_states"), {"waist": "rad"}, 'did you mean "joint_state"'),
        (("states", "joint_state", "waist"), "degrees", "joint_state.waist"),
        (("start_state", "x"), None, "start_state"),
        (("max_observation_age_s",), 0.0, "max_observation_age_s"),
        (("max_speed",), 1.0, "unknown key"),
        (("name",), "other", "the name of the file"),
    ],
)
def test_a_wrong_file_is_refused_by_its_field(tmp_path, path, value, said):
    with pytest.raises(BundleError) as refused:
        load_robot(write_robot(tmp_path, (path, value)))
    assert said in str(refused.value)


def test_a_robot_that_lacks_an_axis_names_what_it_has(tmp_path, ptr_file):
    missing = ((*SPACE, "entries", "dyaw"), None)
    robot = load_robot(write_robot(tmp_path, missing, name="wx250s"))
    with pytest.raises(BundleError, match=r"action\.names: .*'dyaw'"):
        check_robot(ptr_file, load_bundle(ptr_file).deployment, robot)
    other = (SPACE, None), ((D, "joint_position"), {})
    with pytest.raises(BundleError):
        load_robot(write_robot(tmp_path, *other, name="jointed"))


@pytest.mark.parametrize("name", ["", "wx205s", "nowhere.yaml"])
def test_a_robot_that_is_not_there(name):
    with pytest.raises(BundleError, match=r"wx250s|nowhere"):
        load_robot(name)
