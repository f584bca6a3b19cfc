"""The `ros2` command for wheel installations against a running node."""

import functools
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("ros2_wheels")

from process_output import read_until
from rosbags.highlevel import AnyReader
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

ROBOT = Path(__file__).with_name("ros2_cli_robot.py")
ROS2 = [sys.executable, "-m", "ros2_wheels.main"]
_STORED = (".mcap", ".db3")
MOVE = ["/lab/move", "policy_interfaces/action/MoveToNamedPose"]


class Cli:
    """Runs `ros2` commands beside a robot, in a ROS domain of their own."""

    def __init__(self, domain):
        self.environment = {**os.environ, "ROS_DOMAIN_ID": str(domain), "PYTHONUNBUFFERED": "1"}
        self.robot = subprocess.Popen(
            [sys.executable, str(ROBOT), "--ros-args", "-r", "__ns:=/lab"],
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *arguments, **options):
        return subprocess.Popen(
            [*ROS2, *map(str, arguments)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def run(self, *arguments, status=0, timeout_s=40.0):
        """Run a command to its end and return its output; check the exit status."""
        process = self.start(*arguments)
        try:
            output, errors = process.communicate(timeout=timeout_s)
        finally:
            process.kill()
        assert process.returncode == status, output + errors
        return output if status == 0 else output + errors


def end(process):
    """End a command as a user does. A killed one stays in the graph for a while."""
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20.0)


@pytest.fixture(scope="module")
def cli(module_domain):
    result = Cli(module_domain)
    yield result
    result.robot.kill()
    result.robot.wait()


def test_lists_name_what_the_robot_offers(cli):
    assert "/lab/robot\n" in cli.run("node", "list")
    assert "/lab/joint_states [sensor_msgs/msg/JointState]\n" in cli.run("topic", "list", "-t")
    assert "/lab/enable [std_srvs/srv/SetBool]\n" in cli.run("service", "list", "-t")
    assert cli.run("service", "info", "/lab/enable") == (
        "Type: std_srvs/srv/SetBool\nClients count: 0\nServices count: 1\n"
    )
    assert cli.run("action", "list", "-t") == f"{MOVE[0]} [{MOVE[1]}]\n"
    assert cli.run("lifecycle", "nodes") == "/lab/robot\n"
    info = cli.run("node", "info", "/lab/robot")
    assert "  Publishers:\n    /lab/joint_states: sensor_msgs/msg/JointState\n" in info
    assert f"  Action Servers:\n    {MOVE[0]}: {MOVE[1]}\n" in info


def test_echo_prints_messages_of_a_best_effort_publisher(cli):
    text = cli.run("topic", "echo", "--once", "/lab/joint_states")
    document, end, _ = text.partition("---\n")
    assert end
    message = yaml.safe_load(document)
    assert message["name"] == ["waist", "wrist"]
    assert message["position"][1] == 0.25
    assert message["velocity"] == []
    count = message["position"][0]
    line = cli.run("topic", "echo", "--once", "--csv", "--field", "header", "lab/joint_states")
    seconds, nanoseconds, frame = line.strip().split(",")
    assert frame == "base"
    stamp = message["header"]["stamp"]
    assert int(seconds) + int(nanoseconds) * 1e-9 > stamp["sec"] + stamp["nanosec"] * 1e-9
    chosen = ["--filter", f"m[0] > {count + 60}", "--field", "position"]
    selected = cli.run("topic", "echo", "--once", *chosen, "/lab/joint_states")
    # A field that is no message is shown as Python shows it, as by the real command.
    assert selected.startswith("array('d', [") and numbers(selected)[0] > count + 60


def numbers(text):
    """The list in a line that shows an array."""
    return json.loads(text[text.index("[") : text.index("]") + 1])


def test_rate_is_measured_until_it_is_interrupted(cli):
    process = cli.start("topic", "hz", "/lab/joint_states")
    lines = read_until(process, process.stdout, "average rate:")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10.0)
    assert 15.0 < float(lines[-1].split()[-1]) < 25.0
    assert process.returncode == 0


def test_the_age_of_messages_is_measured(cli):
    process = cli.start("topic", "delay", "/lab/joint_states")
    lines = read_until(process, process.stdout, "window:")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10.0)
    average_s = float(lines[-2].removeprefix("average delay: "))
    assert -0.001 < average_s < 5.0 and process.returncode == 0


def test_what_is_misspelt_or_not_here_gets_a_suggestion(cli):
    for words, expected in (
        (["lunch", "widowx_bringup"], "did you mean 'launch'?"),
        (["doctor"], "use ./run doctor"),
        (["launch", "widowx_bringupp", "ptr.launch.py"], "did you mean 'widowx_bringup'?"),
        (["launch", "widowx_bringup", "ptr.lauch.py"], "did you mean 'ptr.launch.py'?"),
        (["run", "widowx_control", "arm_contoller"], "did you mean 'arm_controller'?"),
    ):
        done = cli.start(*words)
        _, error = done.communicate(timeout=40.0)
        assert done.returncode in (1, 2) and expected in error, (words, error)


def test_published_messages_arrive_with_current_stamps(cli):
    echo = cli.start("topic", "echo", "/goal", "geometry_msgs/msg/PoseStamped", "--flow-style")
    before = time.time()
    values = "{header: auto, pose: {position: {x: 1, y: -2.5}}}"
    cli.run("topic", "pub", "-t", "3", "-r", "20", "/goal", "geometry_msgs/PoseStamped", values)
    lines = read_until(echo, echo.stdout, "---")
    end(echo)
    # Mappings keep their lines in the flow style: it is that of sequences.
    message = yaml.safe_load("".join(lines[:-1]))
    assert message["pose"]["position"] == {"x": 1.0, "y": -2.5, "z": 0.0}
    assert before - 1.0 < message["header"]["stamp"]["sec"] <= time.time()
    refused = cli.run("topic", "pub", "/goal", "geometry_msgs/PoseStamped", "{poze: 1}", status=1)
    assert "has no field 'poze', it has: header, pose" in refused
    assert "type is invalid: 'geometry_msgs/Poze'" in cli.run(
        "topic", "pub", "/goal", "geometry_msgs/Poze", status=1
    )


def test_parameters_are_read_set_and_refused(cli, tmp_path):
    assert cli.run("param", "get", "/lab/robot", "arm.limits") == "Double values are: [0.5, 1.5]\n"
    assert (
        cli.run("param", "set", "/lab/robot", "speed_m_s", "1.25") == "Set parameter successful\n"
    )
    assert "Setting parameter failed" in cli.run(
        "param", "set", "/lab/robot", "speed_m_s", "9.0", status=1
    )
    file = tmp_path / "robot.yaml"
    file.write_text(cli.run("param", "dump", "lab/robot"))
    content = yaml.safe_load(file.read_text())["/lab/robot"]["ros__parameters"]
    assert content["speed_m_s"] == 1.25
    assert content["arm"] == {"joints": ["waist", "wrist"], "limits": [0.5, 1.5]}
    file.write_text("/**:\n  ros__parameters:\n    name: loaded\n    speed_m_s: 0.75\n")
    cli.run("param", "load", "/lab/robot", file)
    assert cli.run("param", "get", "--hide-type", "/lab/robot", "name") == "loaded\n"
    assert "  speed_m_s (type: double)\n" in cli.run("param", "list", "lab/robot", "--param-type")
    described = cli.run("param", "describe", "/lab/robot", "speed_m_s")
    assert "  Description: Speed.\n" in described
    assert "    Max value: 2.0\n" in described
    assert "Parameter not set" in cli.run("param", "get", "/lab/robot", "spead", status=1)


def test_services_and_actions_are_called(cli):
    response = cli.run("service", "call", "/lab/enable", "std_srvs/srv/SetBool", "{data: true}")
    assert "SetBool_Response(success=True, message='enabled')" in response
    goal = "{pose: home, duration_s: 0.2}"
    output = cli.run("action", "send_goal", "--feedback", *MOVE, goal)
    assert "Feedback:\n    progress: 0.5" in output
    assert "message: at home" in output
    assert output.endswith("Goal finished with status: SUCCEEDED\n")


def test_ctrl_c_cancels_the_goal(cli):
    process = cli.start("action", "send_goal", *MOVE, "{duration_s: 60.0}")
    read_until(process, process.stdout, "Goal accepted")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20.0)
    assert "Goal canceled." in output
    read_until(cli.robot, cli.robot.stdout, "goal cancelled\n")


def test_lifecycle_states_are_read_and_changed(cli):
    assert cli.run("lifecycle", "get", "/lab/robot") == "unconfigured [1]\n"
    assert cli.run("lifecycle", "set", "/lab/robot", "configure") == "Transitioning successful\n"
    unknown = cli.run("lifecycle", "set", "/lab/robot", "configure", status=1)
    assert "available ones are:\n- cleanup [2]\n- activate [3]\n- shutdown [6]" in unknown
    assert "Transitioning failed" in cli.run("lifecycle", "set", "/lab/robot", "activate", status=1)
    assert cli.run("lifecycle", "get") == "/lab/robot: inactive [2]\n"


def test_nodes_that_are_just_starting_are_listed(cli):
    late = subprocess.Popen(
        # An import that takes its time, as that of a simulator does.
        [sys.executable, "-c", f"import time; time.sleep(3); exec(open({str(ROBOT)!r}).read())",
         *("--ros-args", "-r", "__node:=late", "-r", "__ns:=/lab")],
        env=cli.environment,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert "/lab/late: unconfigured [1]\n" in cli.run("lifecycle", "get")
    finally:
        late.kill()
        late.wait()


def test_interfaces_and_packages_of_wheels_and_of_the_workspace(cli):
    shown = cli.run("interface", "show", "--no-comments", "policy_interfaces/msg/EndEffectorDelta")
    assert shown.startswith(
        "std_msgs/Header header\n\tbuiltin_interfaces/Time stamp\n\t\tint32 sec"
    )
    assert "#" not in shown
    listed = cli.run("interface", "list", "-s")
    assert "    std_srvs/srv/SetBool\n" in listed
    assert "    policy_interfaces/srv/ResetScene\n" in listed
    packages = cli.run("pkg", "list").split()
    assert {"std_msgs", "policy_interfaces"} <= set(packages)
    assert "policy_interfaces" in cli.run("pkg", "prefix", "policy_interfaces")
    assert "Could not find the interface" in cli.run(
        "interface", "show", "std_msgs/msg/Strong", status=1
    )


def start_recording(cli, bag, storage, *options, **process_options):
    """Record /lab/joint_states; return when it is subscribed to, with what was printed before."""
    recording = subprocess.Popen(
        [*ROS2, "bag", "record", "-s", storage, "-o", str(bag), *options, "/lab/joint_states"],
        env=cli.environment,
        stderr=subprocess.PIPE,
        text=True,
        **process_options,
    )
    subscribed = "Subscribed to topic '/lab/joint_states'"
    return recording, read_until(recording, recording.stderr, subscribed)


def wait_until_recorded(bag, text, count=1):
    """Wait until a text is in a bag's files so often: messages come some time after discovery."""
    deadline_s = time.monotonic() + 40.0
    # Not the journal of SQLite, which comes and goes.
    while sum(f.read_bytes().count(text) for f in bag.iterdir() if f.suffix in _STORED) < count:
        assert time.monotonic() < deadline_s, f"{text!r} is not {count} times in the bag"
        time.sleep(0.05)


@pytest.mark.alone
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_recorder_that_is_killed_loses_a_second_at_most(cli, tmp_path, storage):
    bag = tmp_path / "bag"
    recording, _ = start_recording(cli, bag, storage)
    wait_until_recorded(bag, b"wrist", 40)
    time.sleep(0.7)  # what was recorded since then is not in the file yet, in part
    recording.kill()
    killed_s = time.time()
    recording.wait()
    cli.run("bag", "reindex", bag)
    info = cli.run("bag", "info", bag)
    assert "Topic: /lab/joint_states | Type: sensor_msgs/msg/JointState" in info
    with AnyReader([bag]) as reader:
        stamps_s = np.array([stamp_ns * 1e-9 for _, stamp_ns, _ in reader.messages()])
    assert killed_s - stamps_s[-1] < 1.0
    assert np.diff(stamps_s).max() < 0.5


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_full_disk_ends_the_recording_and_keeps_it(cli, tmp_path, storage):
    bag = tmp_path / "bag"
    limit = 60_000
    recording, _ = start_recording(
        cli,
        bag,
        storage,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    _, errors = recording.communicate(timeout=60.0)
    assert recording.returncode == 1
    assert "Recording stopped: " in errors and "ros2 bag reindex" in errors
    cli.run("bag", "reindex", bag)
    with AnyReader([bag]) as reader:
        assert reader.message_count > 20


def test_latched_messages_before_the_offset_are_played_first(cli, tmp_path):
    types = get_typestore(Stores.ROS2_KILTED)
    text = types.types["std_msgs/msg/String"]
    zero = QosTime(0, 0)

    def qos(durability):
        return Qos(
            QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, durability, zero, zero,
            QosLiveliness.AUTOMATIC, zero, False,
        )  # fmt: skip

    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic, durability, times_s in (
            ("/latched", QosDurability.TRANSIENT_LOCAL, (0.0, 1.0)),
            ("/passing", QosDurability.VOLATILE, (0.5, 6.0, 40.0)),
        ):
            connection = writer.add_connection(
                topic,
                "std_msgs/msg/String",
                typestore=types,
                offered_qos_profiles=[qos(durability)],
            )
            for time_s in times_s:
                data = types.serialize_cdr(text(data=f"at {time_s}"), "std_msgs/msg/String")
                writer.write(connection, round(time_s * 1e9), data)
    playing = cli.start("bag", "play", tmp_path / "bag", "--start-offset", "5", "--rate", "0.2")
    options = ["std_msgs/msg/String", "--once", "--qos-durability", "transient_local"]
    assert "at 1.0" in cli.run("topic", "echo", "/latched", *options)
    playing.send_signal(signal.SIGINT)
    playing.communicate(timeout=10.0)


def test_a_recording_in_simulated_time_without_a_clock_says_so(cli, tmp_path):
    recording, said = start_recording(cli, tmp_path / "bag", "mcap", "--use-sim-time")
    if "at time 0" not in "".join(said):
        read_until(recording, recording.stderr, "at time 0")
    recording.send_signal(signal.SIGINT)
    recording.communicate(timeout=20.0)


def test_what_a_recording_lacks_is_named_and_later_publishers_are_heard(cli, tmp_path):
    def publish(reliability, text):
        return cli.start(
            "topic", "pub", "--rate", "10", "--qos-reliability", reliability, "/late",
            "std_msgs/msg/String", f"{{data: {text}}}",
        )  # fmt: skip

    reliable = publish("reliable", "first")
    recording, said = start_recording(cli, tmp_path / "bag", "mcap", "/late", "/never")

    def wait_for(text):
        if not any(text in line for line in said):
            said.extend(read_until(recording, recording.stderr, text))

    try:
        wait_for("Subscribed to topic '/late'")
        best_effort = publish("best_effort", "second")
        try:
            wait_for("another QoS: heard as well")
            wait_for("Nobody publishes '/never' so far")
            assert not any("Nobody publishes '/late'" in line for line in said)
            wait_until_recorded(tmp_path / "bag", b"\x07\0\0\0second\0")  # as CDR
        finally:
            end(best_effort)
        recording.send_signal(signal.SIGINT)
        _, errors = recording.communicate(timeout=20.0)
    finally:
        recording.kill()
        end(reliable)
    assert "Nothing is recorded of '/never': nobody published it" in errors
    with AnyReader([tmp_path / "bag"]) as reader:
        topics = [c for c in reader.connections if c.topic == "/late"]
        found = {reader.deserialize(data, c.msgtype).data for c, _, data in reader.messages(topics)}
    assert found == {"first", "second"}


@pytest.mark.parametrize(
    ("storage", "stop"),
    [("mcap", signal.SIGINT), ("sqlite3", signal.SIGTERM), ("mcap", signal.SIGHUP)],
)
def test_recorded_bags_are_complete_and_can_be_played(cli, tmp_path, storage, stop):
    bag = tmp_path / "bag"
    # Tests started with `nohup` hand on that SIGHUP is ignored, and a recorder keeps to it.
    recording, _ = start_recording(
        cli, bag, storage, preexec_fn=functools.partial(signal.signal, stop, signal.SIG_DFL)
    )
    wait_until_recorded(bag, b"wrist", 40)
    recording.send_signal(stop)
    recording.send_signal(stop)  # a user who is impatient
    assert recording.wait(20.0) == 0
    # The definitions in the bag suffice to read it.
    with AnyReader([bag]) as reader:
        (connection,) = reader.connections
        messages: list[Any] = [
            reader.deserialize(raw, connection.msgtype) for _, _, raw in reader.messages()
        ]
        assert connection.digest.startswith("RIHS01_")
    counts = np.array([message.position[0] for message in messages])
    assert len(counts) >= 20
    assert np.all(np.diff(counts) == 1.0)
    assert list(messages[0].name) == ["waist", "wrist"]

    info = cli.run("bag", "info", bag)
    assert f"Storage id:        {storage}\n" in info
    assert (
        f"Topic: /lab/joint_states | Type: sensor_msgs/msg/JointState | Count: {len(counts)}"
        in info
    )
    assert "already exists" in cli.run("bag", "record", "-a", "-o", bag, status=1)

    echo = cli.start(
        "topic", "echo", "/played", "sensor_msgs/msg/JointState", "--field", "position"
    )
    playing = cli.start(
        "bag", "play", bag, "--loop", "--rate", "4.0", "--remap", "/lab/joint_states:=/played"
    )
    lines = read_until(echo, echo.stdout, ".")
    end(echo)
    playing.send_signal(signal.SIGINT)
    playing.communicate(timeout=10.0)
    assert counts[0] <= numbers(lines[-1])[0] <= counts[-1]
