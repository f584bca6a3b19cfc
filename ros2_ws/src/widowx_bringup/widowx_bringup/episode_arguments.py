"""Launch arguments of episodes: which policy, which tasks, where results go; checked at once."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_prefix
from episode_tools.episode_plan import PlanError, runnable_tasks, select_tasks
from episode_tools.report import ReportError, prepare_report_path
from graph_launch.devices import tcp_port_problem
from graph_launch.launch_arguments import ArgumentError, LaunchArgument
from node_common.strict_yaml import BundleError, Section, did_you_mean, read_yaml_mapping
from policy_server.bundle import find_bundle, known_bundles, model_search_path
from policy_server.deployment import INFERENCE, Deployment, parse_deployment
from policy_server.engine import PROVIDER_NAMES
from policy_server.registry import policy_kinds
from policy_server.robots import check_robot, load_robot

from widowx_bringup.arm import ARM_ARGUMENTS, arm_problems, is_simulated

ROBOT = "wx250s"
_DEFAULT_MODEL = "ptr_widowx_sim"
_COMPRESSED = "/compressed"
_WITHOUT_INFLUENCE = frozenset(
    {
        "episodes",
        "max_repeats",
        "model",
        "record",
        "report",
        "real_time",
        "rtf",
        "seed",
        "task",
        "use_rviz",
        "viewer",
        "viewer_port",
    }
)
"""Arguments that change no result, or stand in the report by themselves."""


def model_path(launch_file: str) -> list[Path]:
    """Directories with bundles, wherever the launch was started."""
    # A symlinked build leaves the launch file in the source tree, an ordinary one does not; the
    # installation prefix is inside the workspace with both.
    start_points = [
        Path.cwd(),
        Path(get_package_prefix("widowx_bringup")),
        Path(launch_file).resolve(),
    ]
    return model_search_path(os.environ, start_points)


def episode_arguments(launch_file: str) -> tuple[LaunchArgument, ...]:
    """The arguments; what can be chosen here and now is listed in their descriptions."""
    models = ", ".join(known_bundles(model_path(launch_file))) or "none"
    return (
        *ARM_ARGUMENTS,
        LaunchArgument(
            "task",
            "all",
            "task names separated by commas, or all; of the simulation: "
            f"{', '.join(simulated_tasks()) or 'not installed'}; a policy for a single task runs "
            "under any of them, with a real arm under any label",
        ),
        LaunchArgument(
            "episodes", "5", "episodes in all, dealt to the tasks in turn", "integer", 1, 1_000_000
        ),
        LaunchArgument(
            "max_repeats",
            "10",
            "how often an episode is repeated that the computer or the arm controller spoiled; "
            "0: as often as it takes",
            "integer",
            0,
            1_000_000,
        ),
        LaunchArgument(
            "real_time",
            "false",
            "arm:=sim: true: on the system's clock, where what comes late spoils an episode; "
            "false: on a simulated clock, which waits when the computer is busy",
            "boolean",
        ),
        LaunchArgument(
            "model", _DEFAULT_MODEL, f"bundle: a directory, or a name in models/; there: {models}"
        ),
        LaunchArgument(
            "policy",
            "",
            "kind of policy that runs the model, e.g. random for random actions as a baseline; "
            f"empty: the bundle's own; kinds: {', '.join(sorted(policy_kinds()))}",
            optional=True,
        ),
        LaunchArgument(
            "policy_parameters",
            "",
            'parameters of that kind as YAML, e.g. "{beta: 1.0}"',
            optional=True,
        ),
        LaunchArgument(
            "inference",
            "",
            "when the next chunk of actions is computed: between_steps, while the robot waits, or "
            "background, while it executes this one; empty: as the bundle says",
            "choice",
            choices=INFERENCE,
            optional=True,
        ),
        LaunchArgument(
            "execute_steps",
            "",
            "steps of a chunk after which the next one is computed; empty: the bundle's",
            "integer",
            1,
            1000,
            optional=True,
        ),
        LaunchArgument(
            "rate_hz",
            "",
            "policy rate [Hz]; empty: the bundle's",
            "number",
            0.1,
            50.0,
            optional=True,
        ),
        LaunchArgument(
            "max_steps", "0", "policy steps per episode; 0: the bundle's", "integer", 0, 100_000
        ),
        LaunchArgument("seed", "0", "evaluation seed; decides every scene", "integer", 0, 999),
        LaunchArgument(
            "provider",
            "",
            f"what computes the policy: {', '.join(PROVIDER_NAMES)}; empty: auto",
            optional=True,
        ),
        LaunchArgument("camera_topic", "/camera/image_raw", "images for the policy"),
        LaunchArgument(
            "image_transport",
            "raw",
            "raw: images on camera_topic; compressed: on camera_topic/compressed, of a real camera",
            "choice",
            choices=("raw", "compressed"),
        ),
        LaunchArgument(
            "ask_operator",
            "false",
            "real arm: wait for a call of /episode_runner/judge_episode after each episode",
            "boolean",
        ),
        LaunchArgument("record", "", "bag to record into; empty: none", optional=True),
        LaunchArgument(
            "report", "", "JSON report, continued if it is there; empty: none", optional=True
        ),
        LaunchArgument("viewer_port", "8642", "TCP port of viewer:=web", "integer", 1024, 65535),
    )


def simulated_tasks() -> list[str]:
    """Tasks that the simulator can set up; none where it is not installed."""
    try:
        from robot_sim.tasks import TASKS
    except ImportError:
        return []
    return list(TASKS)


def image_topic(values: Mapping[str, Any]) -> str:
    """The topic on which images arrive."""
    suffix = _COMPRESSED if values["image_transport"] == "compressed" else ""
    return str(values["camera_topic"]) + suffix


def deciding_arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that decide a result and that the report does not name otherwise."""
    return {name: value for name, value in values.items() if name not in _WITHOUT_INFLUENCE}


def check_combination(values: Mapping[str, Any], models: Sequence[Path]) -> tuple[Path, str]:
    """Refuse, before anything is started, what is right one by one but cannot be run.

    Args:
        values: checked values of `episode_arguments`.
        models: directories with bundles.

    Returns:
        the bundle's directory, and the kind of policy that runs it.

    Raises:
        ArgumentError: with a line for each problem.
    """
    problems = arm_problems(values)
    topic = values["camera_topic"]
    if not re.fullmatch(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", topic):
        problems.append(f"camera_topic is '{topic}'; expected a topic name")
    if topic.endswith(_COMPRESSED):
        base = topic.removesuffix(_COMPRESSED)
        problems.append(
            f"camera_topic is '{topic}'; use camera_topic:={base} image_transport:=compressed"
        )
    if is_simulated(values) and values["image_transport"] != "raw":
        problems.append("image_transport is for a real camera; the simulated one sends raw images")
    if is_simulated(values) and values["ask_operator"]:
        problems.append("ask_operator is for a real arm: the simulation judges its episodes itself")
    if values["real_time"] and values["rtf"] != 1.0:
        problems.append(f"rtf is {values['rtf']:g}; real_time:=true keeps real time")
    problems += _output_problems(values)
    try:
        file = find_bundle(values["model"], list(models))
        deployment = _deployment(file)
        check_robot(file, deployment, load_robot(ROBOT))
    except BundleError as error:
        problems.append(f"model is '{values['model']}': {error}")
        raise ArgumentError("\n".join(problems)) from error
    provider = values["provider"] or PROVIDER_NAMES[0]
    if provider not in PROVIDER_NAMES:
        problems.append(
            f"provider is '{provider}'; expected one of {', '.join(PROVIDER_NAMES)}"
            f"{did_you_mean(provider, PROVIDER_NAMES)}"
        )
    kind = values["policy"] or deployment.policy.kind
    kinds = policy_kinds()
    if kind not in kinds:
        problems.append(
            f"policy is '{kind}'; expected one of {', '.join(sorted(kinds))}"
            f"{did_you_mean(kind, kinds)}"
        )
    try:
        scene = simulated_tasks() if is_simulated(values) else None
        select_tasks(values["task"], runnable_tasks(list(deployment.tasks), scene))
    except PlanError as error:
        problems.append(f"task: {error}")
    if problems:
        raise ArgumentError("\n".join(problems))
    return file.parent, kind


def _deployment(file: Path) -> Deployment:
    return parse_deployment(Section(file, "", read_yaml_mapping(file)).section("deployment"))


def _output_problems(values: Mapping[str, Any]) -> list[str]:
    problems = []
    if values["report"]:
        try:
            prepare_report_path(Path(values["report"]).expanduser())
        except ReportError as error:
            problems.append(str(error))
    if values["record"]:
        record = Path(values["record"]).expanduser()
        if record.exists():
            problems.append(f"record is '{record}', which exists already; name a new bag")
        else:
            parent = next(folder for folder in record.absolute().parents if folder.exists())
            try:
                with tempfile.NamedTemporaryFile(dir=parent):
                    pass
            except OSError as error:
                problems.append(f"record is '{record}', which cannot be made: {error}")
    if values["viewer"] == "web":
        problems += filter(None, [tcp_port_problem("viewer_port", values["viewer_port"])])
    return problems
